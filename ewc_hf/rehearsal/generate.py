"""`generate_rehearsal`: rows of text that a model writes itself; `answer_rehearsal`: old text in their place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..data import Example, predicts_next_token, require_known_tokens, require_within_context
from ..engines import are_sharded, device_of, evaluating, in_full_precision, unwrap, without_cache
from ..storage import digest, fingerprint
from ..version import versions
from .answers import Answers, answers_to
from .batches import in_batches
from .prompt import prompt_tokens
from .rows import Rehearsal, described, tokenizer_fingerprint

TOP_K = 32
"""Likeliest tokens that are remembered at each position."""


def generate_rehearsal(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    num_rows: int = 2048,
    num_tokens: int = 128,
    temperature: float = 1.0,
    top_k: int = TOP_K,
    chat: bool = False,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
    resume_folder: str | os.PathLike[str] | None = None,
) -> Rehearsal:
    """Let a model write rows of text, from its beginning-of-text token on, and store its answers at each position.

    >>> generate_rehearsal(model, tokenizer, num_rows=4, num_tokens=16).save_pretrained("old")

    Tokens are drawn from the model's whole distribution; where it ends a text, the next one follows in the same row.
    The answers are those at temperature 1, whatever the rows were drawn with.

    The defaults were measured with one seed (recipes/results/forgetting_study): at equal task NLL rows at temperature
    0.7 or 1.3 hold 2 to 3 points of the forgetting less, shorter ones 3 points less, 8 likeliest answers 1 point less,
    and 128 about 3 more, in a file of three times the size.

    The model runs in eval mode without autocast; its generation settings and the random states of the CPU and its GPU
    are untouched. Where `torch.distributed` is set up, all processes call this with the same model, and each makes a
    share; the rows do not depend on their number.

    Args:
        model: the old model, a causal language model, whole in each process.
        tokenizer: its tokenizer.
        num_rows: how many.
        num_tokens: tokens a row; best as many as the blocks of the task have, since both ride in one batch.
        temperature: of the draws; below 1 it writes more of what it is sure of.
        top_k: likeliest tokens that are stored at each position, beside a few draws from all others.
        chat: begin with the chat template's beginning of a user's turn, as suits a model that was trained on chats.
        batch_size: rows that are written at a time; the draws depend on it.
        seed: of the draws.
        progress: show a progress bar.
        resume_folder: where finished batches are kept until the rows are saved; the same call goes on from there.

    Raises:
        ValueError: a number out of range, rows longer than the model's context, no token to begin with, `chat` without
            a template, a model that is sharded or is no causal language model, or a `resume_folder` of other rows.
    """
    if num_rows < 1:
        raise ValueError(f"expected num_rows >= 1, got {num_rows}; a few hundred rows are a beginning")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"expected a temperature above 0, got {temperature}; 1 draws as the model was trained")
    prompt = prompt_tokens(tokenizer, chat)
    if num_tokens <= len(prompt):
        raise ValueError(
            f"expected num_tokens > {len(prompt)}, the tokens that each row begins with, got {num_tokens}"
        )
    model = unwrap(model)
    require_within_context(model, num_tokens)
    require_known_tokens(model, {"input_ids": torch.tensor(prompt)})
    sampling = GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_k=0,
        max_new_tokens=num_tokens - len(prompt),
        pad_token_id=prompt[0],
    )

    def make(first: int, last: int) -> tuple[list[Tensor], list[Answers]]:
        device = device_of(next(model.parameters()))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed * 1_000_003 + first)
            with _own_settings_aside(model):
                prompts = torch.tensor([prompt] * (last - first), device=device)
                rows = list(
                    model.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=sampling)
                )
        with without_cache(model):
            return [row.cpu() for row in rows], answers_to(model, rows, top_k, seed + first)

    options = {"source": "model", "num_rows": num_rows, "num_tokens": num_tokens, "top_k": top_k, "seed": seed}
    options |= {"temperature": temperature, "chat": chat, "prompt": prompt, "batch_size": batch_size}
    return _rehearsal(model, tokenizer, options, make, "writing rehearsal rows", progress, resume_folder)


def answer_rehearsal(
    model: PreTrainedModel,
    dataset: Dataset | Iterable[Example],
    tokenizer: PreTrainedTokenizerBase | None = None,
    top_k: int = TOP_K,
    batch_size: int = 32,
    progress: bool = True,
    resume_folder: str | os.PathLike[str] | None = None,
) -> Rehearsal:
    """Store a model's answers to blocks of old text, where such is at hand, in place of text by the model.

    >>> answer_rehearsal(model, blocks, tokenizer).save_pretrained("old")

    Args:
        model: the old model, a causal language model, whole in each process.
        dataset: rows with `input_ids`, of one or several lengths, without padding.
        tokenizer: that made them, so that a run with another one is refused; None leaves that out.
        top_k: likeliest tokens that are stored at each position, beside a few draws from all others.
        batch_size: rows that are answered at a time; the draws from all others depend on it.
        progress: show a progress bar.
        resume_folder: as `generate_rehearsal` has it.

    Raises:
        ValueError: no rows, rows without `input_ids`, with padding or longer than the model's context, a token that it
            does not know, or as `generate_rehearsal`.
    """
    examples = list(dataset)
    if not examples or any("input_ids" not in example or len(example["input_ids"]) == 0 for example in examples):
        raise ValueError(
            f"expected rows with 'input_ids' of at least one token, got {len(examples)} rows, not all of them so; "
            "tokenize the text into blocks, for instance with `ewc_hf.data.pack`"
        )
    if any(0 in example.get("attention_mask", ()) for example in examples):
        raise ValueError("expected rows without padding, got an attention mask with 0; cut the padding off")
    model = unwrap(model)
    rows = [torch.as_tensor(example["input_ids"], dtype=torch.long, device="cpu") for example in examples]
    lengths = list(map(len, rows))
    require_within_context(model, max(lengths))
    require_known_tokens(model, {"input_ids": torch.cat(rows)})

    def make(first: int, last: int) -> tuple[list[Tensor], list[Answers]]:
        with without_cache(model):
            return rows[first:last], answers_to(model, rows[first:last], top_k, first)

    options = {"source": "text", "num_rows": len(rows), "num_tokens": max(lengths), "top_k": top_k}
    options |= {"text": digest(torch.cat([torch.tensor(lengths), *rows])), "batch_size": batch_size}
    return _rehearsal(model, tokenizer, options, make, "answering rehearsal rows", progress, resume_folder)


def _rehearsal(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    options: dict[str, Any],
    make: Callable[[int, int], tuple[list[Tensor], list[Answers]]],
    description: str,
    progress: bool,
    resume_folder: str | os.PathLike[str] | None,
) -> Rehearsal:
    """Make the rows and say what they are."""
    if not predicts_next_token(model) or are_sharded(dict(model.named_parameters())):
        raise ValueError(
            f"expected a causal language model that each process holds whole, got {type(model).__name__}, which "
            "is another kind or sharded; load it with `AutoModelForCausalLM`, without FSDP or ZeRO-3"
        )
    vocab_size = model.config.get_text_config().vocab_size
    if options["batch_size"] < 1 or not 1 <= options["top_k"] <= vocab_size:
        raise ValueError(
            f"expected batch_size >= 1 and top_k from 1 to {vocab_size}, the model's tokens, got "
            f"{options['batch_size']} and {options['top_k']}"
        )
    identity = described(
        **options,
        vocab_size=vocab_size,
        model=fingerprint(model.state_dict()),
        tokenizer=None if tokenizer is None else tokenizer_fingerprint(tokenizer),
        versions=versions(),
    )
    with evaluating(model), in_full_precision(model), torch.no_grad():
        rows = in_batches(
            options["num_rows"], options["batch_size"], make, identity, resume_folder, description, progress
        )
    return Rehearsal(rows, {**identity, "model_name": model.name_or_path}, resume_folder)


@contextmanager
def _own_settings_aside(model: PreTrainedModel) -> Iterator[None]:
    """Let a model write without what its own generation settings would add: an end, penalties, cut-off tails."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own

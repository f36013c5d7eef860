"""Perplexity of documents under a causal language model, with a sliding window and a bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data import IGNORED, next_tokens, pad_examples, token_nll
from ..engines import add_up, device_of, evaluating, num_processes, process_index, unwrap, without_cache


@dataclass(frozen=True)
class DocumentScore:
    """What one document cost: `nll_sum` nats for `num_tokens` tokens, `num_words` words, `num_bytes` bytes."""

    nll_sum: float
    num_tokens: int
    num_words: int
    num_bytes: int


@dataclass(frozen=True)
class PerplexityResult:
    """Perplexity over documents; every mean is weighted by tokens, words or bytes, not by documents.

    Attributes:
        nll: mean negative log-likelihood, nats per token.
        nll_interval: 95% bootstrap interval of `nll` over documents; None for a single document.
        perplexity: `exp(nll)`.
        word_perplexity: `exp(total nats / words)`, words being separated by white space.
        byte_perplexity: `exp(total nats / bytes)` of UTF-8.
        bits_per_byte: `log2(byte_perplexity)`.
        num_tokens: predicted tokens.
        documents: the same of each document, in their order.
    """

    nll: float
    nll_interval: tuple[float, float] | None
    perplexity: float
    word_perplexity: float
    byte_perplexity: float
    bits_per_byte: float
    num_tokens: int
    documents: list[DocumentScore]


def evaluate_perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    stride: int | None = None,
    *,
    window: int | None = None,
    max_document_tokens: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> PerplexityResult:
    """Measure how well a model predicts documents.

    A window slides over each document by `stride` tokens; each token is scored once, in the first window that holds
    it, so with at least `window - stride` tokens of context (fewer only at the beginning). The tokenizer's beginning-
    or end-of-text token comes first, so that the first token is scored too; a tokenizer with neither leaves it out.

    Where `torch.distributed` is set up, all processes call this with the same model and documents; each does its share
    of the windows and returns the whole result.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        texts: documents.
        stride: tokens, fewer than the window; by default half of it. Smaller is closer to the true perplexity, and
            slower.
        window: tokens; by default the model's `max_position_embeddings`, at most 1024.
        max_document_tokens: cut documents after so many tokens.
        batch_size: windows a forward pass of each process.
        seed: of the bootstrap.
        progress: show a progress bar.

    Raises:
        ValueError: no document with a token to predict, a string in place of a list, a slow tokenizer, or a number out
            of range.
    """
    context = model.config.get_text_config().to_dict().get(_context_name(model), math.inf)
    window = int(min(context, 1024)) if window is None else window
    stride = max(window // 2, 1) if stride is None else stride
    if isinstance(texts, str):
        raise ValueError("expected a list of documents, got one string, which would be read letter by letter; wrap it")
    if not tokenizer.is_fast:
        raise ValueError(
            f"expected a fast tokenizer, which tells where its tokens are, got {type(tokenizer).__name__}"
        )
    if not 2 <= window <= context:
        raise ValueError(f"expected 2 <= window <= {context}, the model's context, got {window}")
    if batch_size < 1 or (max_document_tokens is not None and max_document_tokens < 1):
        raise ValueError(
            f"expected batch_size and max_document_tokens >= 1, got {batch_size} and {max_document_tokens}"
        )
    if not 1 <= stride < window:
        raise ValueError(
            f"expected 1 <= stride < window ({window}), got {stride}; windows overlap, so that every token has context"
        )

    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    prefix = [] if first is None else [first]
    documents = []
    for text in texts:
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, offsets = encoding["input_ids"][:max_document_tokens], encoding["offset_mapping"][:max_document_tokens]
        scored_offsets = offsets if prefix else offsets[1:]
        documents.append((ids, text[scored_offsets[0][0] : scored_offsets[-1][1]] if scored_offsets else ""))
    windows = [
        (index, tokens, scored)
        for index, (ids, _) in enumerate(documents)
        for tokens, scored in _windows(prefix + ids, window, stride)
    ]
    windows.sort(key=lambda entry: len(entry[1]), reverse=True)
    nll_sums = np.zeros(len(documents))
    num_tokens = np.zeros(len(documents), dtype=np.int64)
    silent = not progress or process_index() > 0
    with (
        evaluating(model),
        without_cache(model),
        torch.no_grad(),
        tqdm(total=len(windows), desc="perplexity", unit="window", disable=silent) as bar,
    ):
        for start in range(0, len(windows), batch_size * num_processes()):
            everybodys = windows[start : start + batch_size * num_processes()]
            share = everybodys[process_index() :: num_processes()]
            nlls = _window_nll(model, share or everybodys[:1])  # a sharded model needs every process
            for (index, _, scored), nll in zip(share, nlls, strict=False):
                nll_sums[index] += nll
                num_tokens[index] += scored
            bar.update(len(everybodys))
    add_up(nll_sums, num_tokens)
    return _summarize(
        [
            DocumentScore(float(nll), int(count), len(scored_text.split()), len(scored_text.encode()))
            for nll, count, (_, scored_text) in zip(nll_sums, num_tokens, documents, strict=True)
        ],
        seed,
    )


def _context_name(model: PreTrainedModel) -> str:
    """Return what the model's configuration calls the number of its positions."""
    return model.config.get_text_config().attribute_map.get("max_position_embeddings", "max_position_embeddings")


def _windows(tokens: list[int], window: int, stride: int) -> Iterator[tuple[list[int], int]]:
    """Yield windows and how many tokens at the end of each are scored there; the very first token never is."""
    scored_until = 1
    for start in range(0, max(len(tokens) - window, 0) + stride, stride):
        end = min(start + window, len(tokens))
        if end > scored_until:
            yield tokens[start:end], end - scored_until
            scored_until = end


def _window_nll(model: nn.Module, batch: list[tuple[int, list[int], int]]) -> list[float]:
    """Return each window's summed negative log-likelihood over its scored tokens, in nats."""
    examples = []
    for _, tokens, scored in batch:
        examples.append({"input_ids": tokens, "labels": [IGNORED] * (len(tokens) - scored) + tokens[-scored:]})
    device = device_of(next(model.parameters()))
    inputs: dict[str, Tensor] = {key: value.to(device) for key, value in pad_examples(examples, unwrap(model)).items()}
    labels_BT = next_tokens(inputs.pop("labels"))
    return token_nll(model(**inputs).logits, labels_BT).cpu().sum(dim=1, dtype=torch.float64).tolist()


def _summarize(documents: list[DocumentScore], seed: int) -> PerplexityResult:
    nll_sums = np.array([document.nll_sum for document in documents])
    tokens = np.array([document.num_tokens for document in documents])
    if tokens.sum() == 0:
        raise ValueError(f"expected a document with a token to predict, got none in {len(documents)} documents")
    nats, nll = nll_sums.sum(), nll_sums.sum() / tokens.sum()
    words = sum(document.num_words for document in documents)
    num_bytes = sum(document.num_bytes for document in documents)
    return PerplexityResult(
        nll=float(nll),
        nll_interval=interval_over_documents(nll_sums, tokens, seed),
        perplexity=_exp(nll),
        word_perplexity=_exp(nats / max(words, 1)),
        byte_perplexity=_exp(nats / num_bytes),
        bits_per_byte=nats / num_bytes / math.log(2),
        num_tokens=int(tokens.sum()),
        documents=documents,
    )


def interval_over_documents(sums: np.ndarray, num_tokens: np.ndarray, seed: int = 0) -> tuple[float, float] | None:
    """Return the 95% percentile bootstrap interval of `sums.sum() / num_tokens.sum()`, the documents being drawn.

    Args:
        sums: nats of each document.
        num_tokens: tokens of each document; those without any are left out.
        seed: of the 1,000 draws.

    Returns:
        Lower and upper end in nats per token; None for fewer than two documents.
    """
    scored = num_tokens > 0
    if scored.sum() < 2:
        return None
    found = bootstrap(
        (sums[scored], num_tokens[scored]),
        lambda sums, counts, axis: sums.sum(axis=axis) / counts.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def _exp(nats: float) -> float:
    """Return `exp(nats)`, infinite past the range of a float."""
    return math.exp(nats) if nats < 709 else math.inf

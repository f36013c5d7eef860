"""Perplexity of documents under a causal language model, with a sliding window and a bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data import IGNORED, next_tokens, pad_examples, token_nll
from ..engines import (
    add_up,
    device_of,
    evaluating,
    in_full_precision,
    num_processes,
    process_index,
    unwrap,
    without_cache,
)
from ..storage import Tabular
from .causal import context_of, require_causal
from .documents import first_token, read_document
from .interval import interval_over_documents, shown_interval
from .windows import windows


@dataclass(frozen=True)
class DocumentScore:
    """What one document cost: `nll_sum` nats for `num_tokens` tokens, `num_words` words, `num_bytes` bytes."""

    nll_sum: float
    num_tokens: int
    num_words: int
    num_bytes: int


@dataclass(frozen=True, repr=False)
class PerplexityResult(Tabular):
    """Perplexity over documents; every mean is weighted by tokens, words or bytes, not by documents.

    >>> print(evaluate_perplexity(model, tokenizer, texts).summary().splitlines()[0].split())
    ['|', 'measured', '|', 'value', '|']

    Attributes:
        nll: mean negative log-likelihood, nats per token.
        nll_interval: 95% bootstrap interval of `nll` over documents; None for a single document.
        perplexity: `exp(nll)`.
        word_perplexity: `exp(total nats / words)`, words being separated by white space.
        byte_perplexity: `exp(total nats / bytes)` of UTF-8.
        bits_per_byte: `log2(byte_perplexity)`.
        num_tokens: predicted tokens.
        documents: the same of each document, in their order.
        precision: in which the model computed, "float32" or another; compare results of one precision only.
        bos_in_each_window: whether the beginning-of-text token was repeated in each window.
    """

    nll: float
    nll_interval: tuple[float, float] | None
    perplexity: float
    word_perplexity: float
    byte_perplexity: float
    bits_per_byte: float
    num_tokens: int
    documents: list[DocumentScore]
    precision: str
    bos_in_each_window: bool

    def __repr__(self) -> str:
        """Tell perplexity and NLL, without the documents."""
        nats = f"nll={self.nll:.4f}{shown_interval(self.nll_interval)} nats per token"
        counts = f"{len(self.documents):,} documents, {self.num_tokens:,} tokens"
        return f"PerplexityResult(perplexity={self.perplexity:.2f}, {nats}, {counts})"

    def _rows(self) -> list[list[str]]:
        windows = [["windows", "each begins with the beginning-of-text token"]] if self.bos_in_each_window else []
        return [
            ["measured", "value"],
            ["documents", f"{len(self.documents):,}"],
            ["tokens", f"{self.num_tokens:,}"],
            ["NLL (nats per token, 95% interval)", f"{self.nll:.4f}{shown_interval(self.nll_interval)}"],
            ["perplexity per token", f"{self.perplexity:.2f}"],
            ["perplexity per word", f"{self.word_perplexity:.2f}"],
            ["perplexity per byte", f"{self.byte_perplexity:.4f}"],
            ["bits per byte", f"{self.bits_per_byte:.4f}"],
            ["precision", self.precision],
            *windows,
        ]


def evaluate_perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    stride: int | None = None,
    *,
    window: int | None = None,
    max_document_tokens: int | None = None,
    bos_in_each_window: bool = False,
    batch_size: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> PerplexityResult:
    """Measure how well a model predicts documents.

    >>> evaluate_perplexity(model, tokenizer, texts, stride=4).perplexity > 1
    True

    A window slides over each document by `stride` tokens; each token is scored once, in the first window that holds
    it, so with at least `window - stride` tokens of context (fewer only at the beginning). The tokenizer's beginning-
    or end-of-text token comes first, so that the first token is scored too; a tokenizer with neither leaves it out.
    Words and bytes are those of the text from the first scored token to the last.

    The model computes in the precision of its weights, whatever mixed precision it is trained in: load it in float32.

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
        bos_in_each_window: put the token that comes first in the place of each window's first token, which is never
            scored there; the same tokens are scored, with one token less of their own context.
        batch_size: windows a forward pass of each process.
        seed: of the bootstrap.
        progress: show a progress bar.

    Raises:
        ValueError: no document with a token to predict, a string in place of a list, a slow tokenizer, a number out of
            range, a token that the model does not know, or a model that is no causal language model.
    """
    context = context_of(model)
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

    first = first_token(tokenizer)
    if bos_in_each_window and not first:
        raise ValueError(
            "expected a tokenizer with a beginning- or end-of-text token to repeat in each window, got one with "
            "neither; set `tokenizer.bos_token`, or leave bos_in_each_window out"
        )
    documents = [read_document(tokenizer, text, max_document_tokens) for text in texts]
    work = [
        (index, first + tokens[1:] if bos_in_each_window else tokens, scored)
        for index, document in enumerate(documents)
        for tokens, scored in windows(document.tokens, window, stride)
    ]
    if not work:
        raise ValueError(f"expected a document with a token to predict, got none in {len(documents)} documents")
    work.sort(key=lambda entry: len(entry[1]), reverse=True)
    nll_sums = np.zeros(len(documents))
    num_tokens = np.zeros(len(documents), dtype=np.int64)
    silent = not progress or process_index() > 0
    with (
        evaluating(model),
        in_full_precision(model),
        without_cache(model),
        torch.no_grad(),
        tqdm(total=len(work), desc="perplexity", unit="window", disable=silent, leave=False) as bar,
    ):
        precision = require_causal(model, [token for document in documents for token in document.tokens], window)
        for start in range(0, len(work), batch_size * num_processes()):
            everybodys = work[start : start + batch_size * num_processes()]
            share = everybodys[process_index() :: num_processes()]
            nlls = _window_nll(model, share or everybodys[:1])  # a sharded model needs every process
            for (index, _, scored), nll in zip(share, nlls, strict=False):
                nll_sums[index] += nll
                num_tokens[index] += scored
            bar.update(len(everybodys))
    add_up(nll_sums, num_tokens)
    scores = [
        DocumentScore(float(nll), int(count), len(document.scored_text.split()), len(document.scored_text.encode()))
        for nll, count, document in zip(nll_sums, num_tokens, documents, strict=True)
    ]
    return _summarize(scores, seed, precision, bos_in_each_window)


def _window_nll(model: PreTrainedModel, batch: list[tuple[int, list[int], int]]) -> list[float]:
    """Return each window's summed negative log-likelihood over its scored tokens, in nats."""
    examples = []
    for _, tokens, scored in batch:
        examples.append({"input_ids": tokens, "labels": [IGNORED] * (len(tokens) - scored) + tokens[-scored:]})
    device = device_of(next(model.parameters()))
    inputs: dict[str, Tensor] = {key: value.to(device) for key, value in pad_examples(examples, unwrap(model)).items()}
    labels_BT = next_tokens(inputs.pop("labels"))
    return token_nll(model(**inputs).logits, labels_BT).cpu().sum(dim=1, dtype=torch.float64).tolist()


def _summarize(
    documents: list[DocumentScore], seed: int, precision: torch.dtype, bos_in_each_window: bool
) -> PerplexityResult:
    nll_sums = np.array([document.nll_sum for document in documents])
    tokens = np.array([document.num_tokens for document in documents])
    nats, nll = nll_sums.sum(), nll_sums.sum() / tokens.sum()
    words = max(sum(document.num_words for document in documents), 1)
    num_bytes = max(sum(document.num_bytes for document in documents), 1)
    return PerplexityResult(
        nll=float(nll),
        nll_interval=interval_over_documents(nll_sums, tokens, seed),
        perplexity=_exp(nll),
        word_perplexity=_exp(nats / words),
        byte_perplexity=_exp(nats / num_bytes),
        bits_per_byte=nats / num_bytes / math.log(2),
        num_tokens=int(tokens.sum()),
        documents=documents,
        precision=str(precision).removeprefix("torch."),
        bos_in_each_window=bos_in_each_window,
    )


def _exp(nats: float) -> float:
    """Return `exp(nats)`, infinite past the range of a float."""
    return math.exp(nats) if nats < 709 else math.inf

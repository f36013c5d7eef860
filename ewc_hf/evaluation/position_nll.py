"""Perplexity as a metric of `Trainer`: each position's loss is gathered, and not its logits over all tokens.

    Trainer(..., preprocess_logits_for_metrics=position_nll, compute_metrics=perplexity_metrics)

Shapes: B examples, T positions, V tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import pad
from transformers import EvalPrediction

from ..data import IGNORED, next_tokens, token_nll


def position_nll(logits: Tensor | Sequence[Any], labels: Tensor) -> Tensor:
    """Return the negative log-likelihood of each label, [B, T], in nats; 0 where it is ignored or the first.

    Args:
        logits: of a causal language model, [B, T, V], or the first of its outputs.
        labels: [B, T], -100 where they are ignored; each is predicted by the position before it.
    """
    logits_BTV = logits if isinstance(logits, Tensor) else logits[0]
    return pad(token_nll(logits_BTV, next_tokens(labels))[:, :-1], (1, 0))


def perplexity_metrics(evaluated: EvalPrediction) -> dict[str, float]:
    """Return `nll` (nats per label token), `perplexity` and `num_tokens` of what `position_nll` left.

    Args:
        evaluated: predictions from `position_nll`, and labels.
    """
    return token_perplexity(evaluated.predictions, evaluated.label_ids)


def token_perplexity(nll: Any, labels: Any) -> dict[str, float]:
    """Return the mean over all labels but those that are ignored, and each example's first, which nothing predicts.

    Args:
        nll: of each label, nats, [B, T].
        labels: [B, T].

    Raises:
        ValueError: no label is left, or the shapes differ.
    """
    sums_B, counts_B = example_nll(nll, labels)
    if not counts_B.any():
        raise ValueError("expected a label to predict, got none; check the labels")
    mean = float(sums_B.sum() / counts_B.sum())
    perplexity = math.exp(mean) if mean < 709 else math.inf
    return {"nll": mean, "perplexity": perplexity, "num_tokens": float(counts_B.sum())}


def example_nll(nll: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the nats of each example, and how many labels they are of, [B]; arguments as `token_perplexity`.

    Raises:
        ValueError: the shapes differ.
    """
    nll_BT, labels_BT = np.asarray(nll, dtype=np.float64), np.asarray(labels)
    if nll_BT.shape != labels_BT.shape or nll_BT.ndim != 2:
        raise ValueError(
            f"expected a loss for each label, [examples, positions], got {nll_BT.shape} and {labels_BT.shape}; pass "
            "`preprocess_logits_for_metrics=position_nll`"
        )
    counted_BT = labels_BT != IGNORED
    counted_BT[:, 0] = False
    return np.where(counted_BT, nll_BT, 0.0).sum(axis=1), counted_BT.sum(axis=1)

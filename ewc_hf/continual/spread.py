"""How unevenly importance is spread: in each kind of layer, and over all weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_KINDS = (
    (r"bias$", "biases"),
    (r"(^|[._])(ln|norm|layernorm)", "norms"),
    (r"wte|wpe|embed", "embeddings"),
    (r"attn|attention", "attention"),
    (r"mlp|ffn|feed_forward", "feed-forward"),
    (r"conv\d", "convolutions"),
    (r"classifier|head", "output layer"),
)
"""Patterns of parameters' names, the first that matches, and the kind of layer that it tells."""
BINS = np.arange(-8, 5.01, 0.25)
"""Edges of the histogram, in powers of ten of the mean importance of the kind."""


@dataclass(frozen=True)
class Spread:
    """The importance of the weights of one kind.

    Attributes:
        kind: of layer.
        num_weights: how many.
        mean: of Omega.
        largest: Omega.
        zeros: the share of weights whose Omega is 0.
        shares: of the weights in each bin of `log10(Omega / mean)`; the outer ones hold what is farther out.
    """

    kind: str
    num_weights: int
    mean: float
    largest: float
    zeros: float
    shares: list[float]


def spread_by_kind(importance: Mapping[str, Tensor]) -> list[Spread]:
    """Return the spread in each kind of layer, in the order of their parameters.

    Args:
        importance: Omega by parameter name, as of GPT-2's or Llama's parameters; others are kinds of their own.
    """
    kinds: dict[str, list[Tensor]] = {}
    for name, omega in importance.items():
        kinds.setdefault(_kind(name), []).append(omega.detach().flatten().double().cpu())
    return [_spread(kind, torch.cat(tensors)) for kind, tensors in kinds.items()]


def _kind(name: str) -> str:
    return next((kind for pattern, kind in _KINDS if re.search(pattern, name)), name.removesuffix(".weight"))


def _spread(kind: str, omega: Tensor) -> Spread:
    values, mean = omega.numpy(), float(omega.mean())
    positive = values[values > 0]
    inside = np.clip(np.log10(positive / mean), BINS[0], BINS[-1]) if mean > 0 else positive
    counts = np.histogram(inside, BINS)[0]
    shares: Iterable[float] = counts / len(values)
    return Spread(kind, len(values), mean, float(values.max()), float(np.mean(values == 0)), list(shares))

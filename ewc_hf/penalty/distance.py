"""How far a model is from its anchor before it is trained: another checkpoint shows in that."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.utils import logging

from ..engines import SteppedParameters, displacement, in_chunks
from .diagonal import Diagonal
from .held import Remembers
from .low_rank import LowRank

logger = logging.get_logger(__name__)

_FAR = 0.1
"""A tenth of the anchor's norm; rounding to bfloat16 moves by a five-hundredth."""


def warn_if_far(
    consolidation: Remembers, parameters: SteppedParameters, diagonal: Diagonal, of_adapters: Sequence[LowRank]
) -> None:
    """Warn of weights that are far from the anchor at the start, be they trained or frozen beneath adapters.

        ||w - w*|| / ||w*||   over all weights with an importance above 0

    Args:
        consolidation: which holds the anchor of frozen weights.
        parameters: as they are.
        diagonal: the term of those that are trained, which holds their anchor.
        of_adapters: the terms of frozen ones.
    """
    moved, norms = {}, {}
    for p in parameters:
        if p.name in diagonal.names:
            anchor, omega = diagonal.anchor[p.name], diagonal.importance[p.name]
            moved[p.name], norms[p.name] = _sums(p.weight, anchor, omega)
    distance, norm = parameters.sum_over_processes(moved), parameters.sum_over_processes(norms)
    for frozen in (term.frozen(consolidation.anchor) for term in of_adapters):
        for weight, anchor, omega in frozen:
            more, size = _sums(weight, anchor, omega)
            distance, norm = distance + more, norm + size
    if distance > _FAR**2 * norm:
        logger.warning(
            f"The weights begin {math.sqrt(distance / norm) if norm else math.inf:.0%} of their norm away from what "
            "they are held at: the consolidation may be of another checkpoint"
        )


def _sums(weight: Tensor, anchor: Tensor, importance: Tensor) -> tuple[float, float]:
    """Return the sums of `(w - w*)^2` and `w*^2` over weights with an importance above 0."""
    moved = norm = 0.0
    for w, a, omega in in_chunks(weight, anchor, importance):
        held = omega > 0
        moved += displacement(w, a, torch.float32).where(held, 0).square().sum().item()
        norm += a.float().where(held, 0).square().sum().item()
    return moved, norm

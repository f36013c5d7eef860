"""How far a model is from its anchor before it is trained: another checkpoint shows in that."""

from __future__ import annotations

import math

import torch
from transformers.utils import logging

from ..engines import SteppedParameters, displacement, in_chunks
from .diagonal import Diagonal

logger = logging.get_logger(__name__)

_FAR = 0.1
"""A tenth of the anchor's norm; rounding to bfloat16 moves by a five-hundredth."""


def warn_if_far(term: Diagonal, parameters: SteppedParameters) -> None:
    """Warn of weights that are far from the anchor at the start.

        ||w - w*|| / ||w*||   over all weights with an importance above 0

    Args:
        term: which holds the anchor.
        parameters: as they are.
    """
    moved, norms = {}, {}
    for p in parameters:
        if p.name in term.names:
            sums = torch.zeros(2, dtype=torch.float64, device=p.weight.device)
            for w, anchor, omega in in_chunks(p.weight, term.anchor[p.name], term.importance[p.name]):
                held = omega > 0
                moves = displacement(w, anchor, torch.float32).where(held, 0)
                sums += torch.stack([moves.square().sum(), anchor.float().where(held, 0).square().sum()])
            moved[p.name], norms[p.name] = sums.tolist()
    distance = math.sqrt(parameters.sum_over_processes(moved))
    norm = math.sqrt(parameters.sum_over_processes(norms))
    if distance > _FAR * norm:
        logger.warning(
            f"The weights begin {distance / norm:.0%} of their norm away from what they are held at: the "
            "consolidation may be of another checkpoint. They will be drawn towards that"
        )

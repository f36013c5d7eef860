"""What the penalty is compared with."""

from __future__ import annotations

import torch
from torch import nn

from .consolidation import Consolidation
from .params import trainable_parameters, unwrap


def l2_to_start(model: nn.Module) -> Consolidation:
    """Return importance 1 for every weight: the penalty `lambda/2 ||w - w*||^2`, which needs no data.

    Args:
        model: with the weights to stay near.

    Reference: Li et al. 2018, "Explicit Inductive Bias for Transfer Learning" (L2-SP).
    """
    parameters = trainable_parameters(unwrap(model))
    return Consolidation.create(
        importance={name: torch.ones_like(p, dtype=torch.float32) for name, p in parameters.items()},
        anchor={name: p.detach().clone() for name, p in parameters.items()},
        method="l2",
        unit="squared weight",
        num_examples=0,
        num_tokens=0,
    )

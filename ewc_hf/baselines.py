"""What the penalty is compared with."""

from __future__ import annotations

from torch import nn

from .by_example import zeros_like_parameters
from .consolidation import Consolidation
from .params import trainable_parameters
from .sharding import sharded_like


def l2_to_start(model: nn.Module) -> Consolidation:
    """Return importance 1 for every weight: the penalty `lambda/2 ||w - w*||^2`, which needs no data.

    Args:
        model: with the weights to stay near.

    Reference: Li et al. 2018, "Explicit Inductive Bias for Transfer Learning" (L2-SP).
    """
    parameters = trainable_parameters(model)
    return Consolidation.create(
        importance={
            name: sharded_like(parameters[name], zeros.fill_(1))
            for name, zeros in zeros_like_parameters(model).items()
        },
        anchor={name: p.detach().clone() for name, p in parameters.items()},
        method="l2",
        unit="squared weight",
        num_examples=0,
        num_tokens=0,
    )

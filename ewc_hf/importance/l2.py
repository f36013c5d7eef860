"""Importance 1 for every weight: the penalty that needs no data, with which the others are compared."""

from __future__ import annotations

import torch
from torch import nn

from ..consolidation import Consolidation
from ..engines import local_part, sharded_like, trainable_parameters
from .methods import Method


def l2_to_start(model: nn.Module) -> Consolidation:
    """Return the consolidation of `lambda/2 ||w - w*||^2`.

    >>> trainer = EWCTrainer(model=model, args=EWCConfig("out", ewc_lambda=0.01), consolidation=l2_to_start(model))

    Args:
        model: with the weights to stay near.

    Reference: Li et al. 2018, "Explicit Inductive Bias for Transfer Learning" (L2-SP).
    """
    importance, anchor = {}, {}
    for name, p in trainable_parameters(model).items():
        ones = torch.ones_like(local_part(p), dtype=torch.promote_types(p.dtype, torch.float32))
        importance[name] = sharded_like(p, ones)
        anchor[name] = p.detach().clone()
    return Consolidation.create(
        importance, anchor, method=Method.L2.value, unit=Method.L2.unit, num_examples=0, num_tokens=0
    )

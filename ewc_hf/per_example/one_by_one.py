"""Per-example gradient statistics with one backward pass an example: right for every model, and the slow twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ..data import Batch
from ..engines import are_sharded, local_part, trainable_parameters
from .contributions import Statistic

Objective = Callable[[nn.Module, Batch], Tensor]
"""Maps a model and a batch to one scalar per example, a tensor [B], inside autograd."""


def add_one_by_one(
    sums: Mapping[str, Tensor],
    parameters: Mapping[str, nn.Parameter],
    model: nn.Module,
    batch: Batch,
    objective: Objective,
    statistic: Statistic,
) -> None:
    r"""Add a batch's statistic with one backward pass an example: the slow twin of `OnePass`.

        sums_i += \sum_{b=1}^{B} f(d objective_b / d w_i)

    Of a model that FSDP2 shards, all processes do each example, and FSDP averages equal gradients.

    Args:
        sums: by parameter name, changed in place; of a sharded parameter, of the part that this process holds.
        parameters: those to differentiate with respect to.
        model: unwrapped; `p.grad` stays as it is.
        batch: of a sharded model the same in every process.
        objective: maps model and batch to one scalar per example.
        statistic: `f`.
    """

    def add(name: str, gradient: Tensor) -> None:
        statistic.add(sums[name], gradient)

    differentiate = partial(_differentiate_sharded, model) if are_sharded(parameters) else _differentiate
    for example in batch.alone():
        differentiate(objective(model, example).sum(), parameters, add)


def _differentiate(value: Tensor, parameters: Mapping[str, nn.Parameter], take: Callable[[str, Tensor], None]) -> None:
    """Hand over each gradient when it is there, so that those of one parameter only are held at a time."""

    def take_and_drop(name: str, gradient: Tensor) -> Tensor:
        take(name, gradient)
        return gradient.new_zeros(()).expand_as(gradient)

    hooks = [p.register_hook(partial(take_and_drop, name)) for name, p in parameters.items()]
    try:
        torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()


def _differentiate_sharded(
    model: nn.Module, value: Tensor, parameters: Mapping[str, nn.Parameter], take: Callable[[str, Tensor], None]
) -> None:
    """Hand over this process's part of each gradient; FSDP2 leaves them in `p.grad` and nowhere else."""
    held = {p: p.grad for p in trainable_parameters(model).values()}
    for p in held:
        p.grad = None
    try:
        value.backward()
        for name, p in parameters.items():
            if p.grad is not None:
                take(name, local_part(p.grad))
    finally:
        for p, gradient in held.items():
            p.grad = gradient

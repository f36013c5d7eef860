"""Per-example gradient statistics with one backward pass an example: right for every model, and the slow twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from .batching import Batch
from .contributions import Statistic
from .params import trainable_parameters
from .sharding import local_part

Objective = Callable[[nn.Module, Batch], Tensor]
"""Maps a model and a batch to one scalar per example, a tensor [B], inside autograd."""


def add_by_example(
    sums: Mapping[str, Tensor],
    parameters: Mapping[str, nn.Parameter],
    model: nn.Module,
    batch: Batch,
    objective: Objective,
    statistic: Statistic,
) -> None:
    r"""Add a batch's statistic with one backward pass an example: the slow twin of `BatchedBackward`.

        sums_i += \sum_{b=1}^{B} f(d objective_b / d w_i)

    Args:
        sums: by parameter name, changed in place.
        parameters: those to differentiate with respect to.
        model: unwrapped.
        batch: tensors with B examples along their first dimension.
        objective: maps model and batch to one scalar per example.
        statistic: `f`.
    """

    def add_and_drop(name: str, gradient: Tensor) -> Tensor:
        """So that the gradients of one parameter only are held at a time."""
        statistic.add(sums[name], gradient)
        return gradient.new_zeros(()).expand_as(gradient)

    hooks = [p.register_hook(partial(add_and_drop, name)) for name, p in parameters.items()]
    try:
        for example in examples_of(batch):
            torch.autograd.grad(objective(model, example).sum(), list(parameters.values()), allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()


def add_by_example_together(
    sums: Mapping[str, Tensor],
    parameters: Mapping[str, nn.Parameter],
    model: nn.Module,
    batch: Batch,
    objective: Objective,
    statistic: Statistic,
) -> None:
    """Add the same of a model that FSDP2 shards: all processes do each example, and FSDP averages equal gradients.

    Args:
        sums: by parameter name, changed in place: of the part that this process holds.
        parameters: those to differentiate with respect to.
        model: unwrapped.
        batch: the same in every process.
        objective: maps model and batch to one scalar per example.
        statistic: `f`.
    """
    held = {p: p.grad for p in model.parameters()}
    for p in held:
        p.grad = None
    try:
        for example in examples_of(batch):
            objective(model, example).sum().backward()
            for name, p in parameters.items():
                if p.grad is not None:
                    statistic.add(sums[name], local_part(p.grad))
            model.zero_grad(set_to_none=True)
    finally:
        for p, grad in held.items():
            p.grad = grad


def zeros_like_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return a zero accumulator a trainable parameter: float64 for float64 parameters, else float32.

    Of a sharded parameter it has the shape of the part that this process holds.
    """
    return {
        name: torch.zeros_like(local_part(p), dtype=torch.promote_types(p.dtype, torch.float32))
        for name, p in trainable_parameters(model).items()
    }


def examples_of(batch: Batch) -> Iterator[Batch]:
    """Split a batch of B examples into B batches of one."""
    size = len(batch["labels"])
    yield from ({key: value[i : i + 1] for key, value in batch.items()} for i in range(size))

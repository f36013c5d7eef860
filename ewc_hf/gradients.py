"""Per-example gradient statistics: the sum over examples of the squared or absolute gradient of each example."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum

import torch
from torch import Tensor, nn

from .batching import Batch
from .params import trainable_parameters

Objective = Callable[[nn.Module, Batch], Tensor]
"""Maps a model and a batch to one scalar per example, a tensor [B], inside autograd."""


class Statistic(Enum):
    """What is summed over the examples' gradients."""

    SQUARE = "square"
    """`sum_examples g_example^2`, the Fisher information's."""

    ABSOLUTE = "absolute"
    """`sum_examples |g_example|`, that of Memory Aware Synapses."""


def zeros_like_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return a zero accumulator a trainable parameter: float64 for float64 parameters, else float32."""
    return {
        name: torch.zeros_like(p, dtype=torch.float64 if p.dtype == torch.float64 else torch.float32)
        for name, p in trainable_parameters(model).items()
    }


def examples_of(batch: Batch) -> Iterator[Batch]:
    """Split a batch of B examples into B batches of one."""
    size = len(batch["labels"])
    yield from ({key: value[i : i + 1] for key, value in batch.items()} for i in range(size))


def add_gradient_statistic_reference(
    sums: dict[str, Tensor], model: nn.Module, batch: Batch, objective: Objective, statistic: Statistic
) -> None:
    r"""Add the batch's statistic to `sums`, one backward pass an example.

        sums_i += \sum_{b=1}^{B} f(d objective_b / d w_i),      f(g) = g^2 or |g|

    The function is applied to each EXAMPLE's gradient. Squaring the gradient of a batch's mean instead shrinks a
    noise-dominated Fisher information by the batch size.

    Args:
        sums: accumulators of `zeros_like_parameters`, changed in place.
        model: in the mode (train or eval) to differentiate in; `p.grad` is neither read nor written.
        batch: tensors with B examples along their first dimension.
        objective: maps model and batch to one scalar per example.
        statistic: `f`.
    """
    parameters = trainable_parameters(model)
    for example in examples_of(batch):
        value = objective(model, example).sum()
        gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for name, gradient in dict(zip(parameters, gradients, strict=True)).items():
            if gradient is not None:
                gradient = gradient.to(sums[name].dtype)
                sums[name] += gradient.square() if statistic is Statistic.SQUARE else gradient.abs()

"""Where a second task leads the weights, over lambda: how far away, at what cost, and who uses up the gradient's norm.

Section 3 of Kutalev & Lapina 2021 (arXiv 2109.10021): under SGD a step of plain EWC overshoots the anchor wherever
`alpha lambda Omega > 1`, and explodes above 2; stabilization bounds that product by 1.

Shapes: S networks, one a lambda.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .learning import Lessons, batches_of, loss_of, measured_accuracy
from .protection import Protection
from .rows import Row
from .stack import Stack
from .tasks import Task

Optimize = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class PathEnd:
    """What the second task did to one network.

    Attributes:
        ewc_lambda: its lambda.
        farthest: the largest root mean square of `w - w*` after any step; infinite where a weight is no number.
        saturated: the share of weights with `alpha lambda Omega > 1`.
        norm_share: the share of the squared norm of the gradient that lies in these weights, mean over the steps
            before any weight is no number.
        old_accuracy: on the first task, in the end.
        new_accuracy: on the second.
    """

    ewc_lambda: float
    farthest: float
    saturated: float
    norm_share: float
    old_accuracy: float
    new_accuracy: float


def follow_paths(
    learned: Stack,
    known: Protection,
    tasks: Sequence[Task],
    row: Row,
    lambdas: Sequence[float],
    lessons: Lessons,
    optimize: Optimize,
    max_grad_norm: float | None = None,
) -> list[PathEnd]:
    """Let copies of a network that has learned one task learn a second one, each with a lambda of its own.

    Args:
        learned: a stack of this one network; it is not changed.
        known: what it has to remember.
        tasks: the first one and the second one.
        row: how the penalty acts; its importance is the known one's.
        lambdas: of the copies.
        lessons: how the second task is learned.
        optimize: makes the optimizer.
        max_grad_norm: to which each network's gradient is clipped; the penalty's part in it is clipped with it.
    """
    stack, protection = Stack([learned.member(0) for _ in lambdas]), known.repeated(row, lambdas)
    stack.to(tasks[1].train.pixels.device).train()
    assert protection.consolidation is not None, "something is known"
    anchor, omega = _rows(protection.consolidation.anchor), _rows(protection.consolidation.importance)
    optimizer = optimize(list(stack.parameters()))
    alpha = optimizer.param_groups[0]["lr"]
    is_saturated = alpha * torch.tensor(lambdas).to(omega)[:, None] * omega > 1
    farthest, shares, steps_counted = (torch.zeros(len(lambdas), dtype=torch.float64) for _ in range(3))
    with protection.while_learning(stack, optimizer) as steps:
        for pixels, labels in batches_of(tasks[1], lessons, [0] * len(lambdas), 1):
            optimizer.zero_grad()
            loss_of(stack, pixels, labels).backward()
            steps.before()
            square = (
                _rows({n: p.grad for n, p in stack.network.named_parameters() if p.grad is not None}).double() ** 2
            )
            share = ((square * is_saturated).sum(1) / square.sum(1)).cpu()
            shares += share.nan_to_num(0.0)
            steps_counted += share.isfinite()
            if max_grad_norm is not None:
                _scale_gradients(stack, (max_grad_norm / square.sum(1).sqrt()).clamp(max=1.0))
            optimizer.step()
            steps.after()
            distance = (
                (_rows(dict(stack.network.named_parameters())).detach().double() - anchor).square().mean(1).sqrt()
            )
            farthest = torch.maximum(farthest, distance.nan_to_num(nan=math.inf, posinf=math.inf).cpu())
    old, new = (measured_accuracy(stack, task) for task in tasks)
    columns = (farthest, is_saturated.double().mean(1), shares / steps_counted.clamp(min=1), old, new)
    return [PathEnd(*values) for values in zip(lambdas, *(column.tolist() for column in columns), strict=True)]


def _rows(tensors: dict[str, Tensor]) -> Tensor:
    """Return the numbers of each network in a row, [S, weights]."""
    return torch.cat([tensor.flatten(1) for tensor in tensors.values()], dim=1)


def _scale_gradients(stack: Stack, factors: Tensor) -> None:
    for parameter in stack.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(factors.to(parameter.grad).view(-1, *[1] * (parameter.dim() - 1)))

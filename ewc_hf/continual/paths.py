"""Where a second task leads the weights, over lambda: how far away, at what cost, and who uses up the gradient's norm.

Section 3 of Kutalev & Lapina 2021 (arXiv 2109.10021): under SGD a step of plain EWC overshoots the anchor wherever
`alpha lambda Omega > 1`, and explodes above 2; stabilization bounds that product by 1.

Shapes: S networks, one a lambda.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .learning import Lessons, batches_of, last_pictures, learn_in_turn, measured_accuracy
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
        farthest: the largest root mean square of `w - w*` after any step; infinite where it exploded.
        saturated: the share of weights with `alpha lambda Omega > 1`.
        norm_share: the share of the squared norm of the gradient, mean over steps, that lies in these weights.
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
    network: nn.Module,
    tasks: Sequence[Task],
    row: Row,
    lambdas: Sequence[float],
    lessons: Lessons,
    optimize: Optimize,
    max_grad_norm: float | None = None,
) -> list[PathEnd]:
    """Let a network learn one task, and copies of it a second one, each with a lambda of its own.

    Args:
        network: as it is initialized; it is not changed.
        tasks: two.
        row: whose importance, and how the penalty acts.
        lambdas: of the copies.
        lessons: how each task is learned.
        optimize: makes the optimizer of the second task; the first one's is Adam.
        max_grad_norm: to which each network's gradient is clipped, the penalty's share in it or not, as coupled.
    """
    first, second = tasks
    stack = Stack([network]).to(first.train.pixels.device)
    learn_in_turn(stack, [first], Protection(None, [0.0]), lessons, [0])
    stack = Stack([copy.deepcopy(stack.member(0)) for _ in lambdas])
    protection = Protection(row, lambdas)
    protection.remember(stack, last_pictures(first, lessons))
    assert protection.consolidation is not None
    anchor, omega = _rows(protection.consolidation.anchor), _rows(protection.consolidation.importance)
    optimizer = optimize(list(stack.parameters()))
    alpha = optimizer.param_groups[0]["lr"]
    is_saturated = alpha * torch.tensor(lambdas).to(omega)[:, None] * omega > 1
    farthest, shares = torch.zeros(len(lambdas)), []
    stack.train()
    with protection.while_learning(stack, optimizer) as steps:
        for pixels, labels in batches_of(second, lessons, [0] * len(lambdas), 1):
            optimizer.zero_grad()
            loss = cross_entropy(stack(pixels).flatten(0, 1), labels.flatten(), reduction="sum") / labels.shape[1]
            loss.backward()
            steps.before()
            gradient = _rows({name: p.grad for name, p in stack.network.named_parameters() if p.grad is not None})
            square = gradient.double().square()
            shares.append((square * is_saturated).sum(1) / square.sum(1))
            if max_grad_norm is not None:
                _clip(stack, (max_grad_norm / square.sum(1).sqrt()).clamp(max=1.0))
            optimizer.step()
            steps.after()
            moved = _rows(dict(stack.network.named_parameters())).detach().double() - anchor
            farthest = torch.maximum(farthest, moved.square().mean(1).sqrt().nan_to_num(nan=torch.inf).cpu())
    old, new = measured_accuracy(stack, first), measured_accuracy(stack, second)
    columns = (farthest, is_saturated.double().mean(1), torch.stack(shares).mean(0), old, new)
    return [PathEnd(*values) for values in zip(lambdas, *(column.tolist() for column in columns), strict=True)]


def _rows(tensors: dict[str, Tensor]) -> Tensor:
    """Return the numbers of each network in a row, [S, weights]."""
    return torch.cat([tensor.flatten(1) for tensor in tensors.values()], dim=1)


def _clip(stack: Stack, factors: Tensor) -> None:
    for parameter in stack.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(factors.to(parameter.grad).view(-1, *[1] * (parameter.dim() - 1)))

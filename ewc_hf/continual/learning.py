"""One task after another, learned by a stack of networks; and how well all are solved after each.

Shapes: S networks, G seeds among them, B pictures a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .protection import Protection
from .stack import Stack
from .tasks import Task


@dataclass(frozen=True)
class Lessons:
    """How each task is learned; the defaults are what the paper tells."""

    epochs: int = field(default=6, metadata={"help": "Passes over each task's training pictures."})
    batch_size: int = field(default=100, metadata={"help": "Pictures a step."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Of Adam, whose state lasts over all tasks."})
    carry_optimizer: bool = field(
        default=False,
        metadata={
            "help": "Begin each run with the state that the run before left to Adam, as the authors' code does."
        },
    )

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: one is not positive.
        """
        if self.epochs < 1 or self.batch_size < 1 or not 0 < self.learning_rate < math.inf:
            raise ValueError(f"expected epochs, batch size and learning rate > 0, got {self}")

    @property
    def are_the_papers(self) -> bool:
        """Whether these are the paper's, with or without what its code does beyond its text."""
        return replace(self, carry_optimizer=False) == Lessons()

    def steps(self, task: Task) -> int:
        """Return how many steps a task takes."""
        return self.epochs * math.ceil(len(task.train) / self.batch_size)


def learn_in_turn(
    stack: Stack,
    tasks: Sequence[Task],
    protection: Protection,
    lessons: Lessons,
    seeds: Sequence[int],
    on_step: Callable[[], object] = lambda: None,
    optimizer: torch.optim.Adam | None = None,
) -> Tensor:
    """Let a stack of networks learn tasks one after another.

    Args:
        stack: the networks; they are changed.
        tasks: in this order.
        protection: what holds them near the earlier tasks.
        lessons: how each task is learned.
        seeds: of each network, [S]; networks of one seed see the same batches.
        on_step: called after each step.
        optimizer: of their parameters; None makes one.

    Returns:
        The share of a task's test pictures that each network tells right, after each task, [S, tasks, tasks]: after
        the row's, on the column's; NaN for tasks that were not learned by then.
    """
    optimizer = optimizer or adam_of(stack, lessons)
    accuracy = torch.full((len(stack), len(tasks), len(tasks)), math.nan)
    for number, task in enumerate(tasks):
        stack.train()
        with protection.while_learning(stack, optimizer) as steps:
            for pixels, labels in batches_of(task, lessons, seeds, number):
                optimizer.zero_grad()
                loss_of(stack, pixels, labels).backward()
                steps.before()
                optimizer.step()
                steps.after()
                on_step()
        if number < len(tasks) - 1:
            protection.remember(stack, task)
        for earlier, known in enumerate(tasks[: number + 1]):
            accuracy[:, number, earlier] = measured_accuracy(stack, known)
    return accuracy


def adam_of(stack: Stack, lessons: Lessons) -> torch.optim.Adam:
    """Return the optimizer of a stack."""
    return torch.optim.Adam(stack.parameters(), lr=lessons.learning_rate, fused=True)


def loss_of(stack: Stack, pixels: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of the networks' mean losses, so that each has the gradient of its own."""
    return cross_entropy(stack(pixels).flatten(0, 1), labels.flatten(), reduction="sum") / labels.shape[1]


def measured_accuracy(stack: Stack, task: Task, batch_size: int = 1000) -> Tensor:
    """Return the share of a task's test pictures that each network tells right, [S]."""
    right = torch.zeros(len(stack), device=task.test.labels.device)
    stack.eval()
    with torch.no_grad():
        for start in range(0, len(task.test), batch_size):
            rows = slice(start, start + batch_size)
            pixels = task.seen(task.test.pixels[rows]).expand(len(stack), -1, -1, -1)
            right += (stack(pixels).argmax(-1) == task.test.labels[rows]).sum(1)
    return (right / len(task.test)).cpu()


def batches_of(task: Task, lessons: Lessons, seeds: Sequence[int], number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pictures, [S, B, H, W], and labels, [S, B], in an order of each seed's own."""
    distinct = sorted(set(seeds))
    device = task.train.labels.device
    of_member = torch.tensor([distinct.index(seed) for seed in seeds], device=device)
    generators = [torch.Generator().manual_seed(1000 * seed + number) for seed in distinct]
    for _ in range(lessons.epochs):
        order_GN = torch.stack([torch.randperm(len(task.train), generator=generator) for generator in generators])
        for chosen_GB in order_GN.split(lessons.batch_size, dim=1):
            chosen_GB = chosen_GB.to(device)
            pixels = task.seen(task.train.pixels[chosen_GB])
            yield pixels[of_member], task.train.labels[chosen_GB][of_member]

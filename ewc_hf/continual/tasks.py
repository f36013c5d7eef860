"""Tasks to learn one after another: the same classes, seen in other ways.

Shapes: B pictures of H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .images import Images


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: of it in reports.
        train: pictures to learn from, as they were read.
        test: pictures to test on, likewise.
        seen: makes of a batch of pictures, [..., H, W], what the network sees of them.
    """

    name: str
    train: Images
    test: Images
    seen: Callable[[Tensor], Tensor] = lambda pixels: pixels


def permuted_tasks(train: Images, test: Images, num_tasks: int, seed: int = 0) -> list[Task]:
    """Return the pictures as they are, and under `num_tasks - 1` random permutations of their pixels.

    Args:
        train: pictures to learn from.
        test: pictures to test on.
        num_tasks: how many tasks.
        seed: of the permutations, which all runs share, as in the paper's code.
    """
    generator = torch.Generator().manual_seed(seed)
    num_pixels = train.pixels[0].numel()
    orders = [torch.randperm(num_pixels, generator=generator).to(train.pixels.device) for _ in range(num_tasks - 1)]
    others = [
        Task(f"permutation {number}", train, test, partial(_permuted, order)) for number, order in enumerate(orders, 1)
    ]
    return [Task("as they are", train, test), *others]


def rotated_tasks(first: tuple[Images, Images], second: tuple[Images, Images]) -> list[Task]:
    """Return two kinds of pictures (train, test) as they are, and then both turned by 90 degrees."""
    tasks = [Task(name, *images) for name, images in (("first", first), ("second", second))]
    return tasks + [Task(f"{task.name}, turned", task.train, task.test, _turned) for task in tasks]


def _permuted(order: Tensor, pixels: Tensor) -> Tensor:
    return pixels.flatten(-2)[..., order].view_as(pixels)


def _turned(pixels: Tensor) -> Tensor:
    return pixels.rot90(1, (-2, -1))

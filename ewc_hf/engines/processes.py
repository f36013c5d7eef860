"""The processes that work together, and what each of them does."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def launched() -> PartialState:
    """Return the state of this process as it was launched; on CPUs `PartialState()` alone would see one process."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


def num_processes() -> int:
    """Return how many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_index() -> int:
    """Return which of them this one is."""
    return dist.get_rank() if dist.is_initialized() else 0


def divided(items: Sequence[_Item], work: Callable[[_Item], _Result], collective: bool) -> list[_Result]:
    """Return the result of work on each item.

    Args:
        items: the same in every process.
        work: done on each item.
        collective: whether all processes call this, share the work, and get all results; else each does all of it.

    Raises:
        ValueError: one was raised in some process; it is raised in each that works along.
    """
    size, index = (num_processes(), process_index()) if collective else (1, 0)
    results: dict[int, _Result] = {}
    problem: str | None = None
    try:
        for position in range(index, len(items), size):
            results[position] = work(items[position])
    except ValueError as error:
        problem = str(error)
    everybody: list[Any] = [(results, problem)]
    if size > 1:
        everybody = [None] * size
        dist.all_gather_object(everybody, (results, problem))
    for _, found in everybody:
        if found is not None:
            raise ValueError(found)
    merged = {position: result for share, _ in everybody for position, result in share.items()}
    return [merged[position] for position in range(len(items))]


def sum_over(group: dist.ProcessGroup, value: float) -> float:
    """Return the sum of a number of each process of a group."""
    total = torch.tensor(value, dtype=torch.float64)
    all_reduce(total, group)
    return total.item()


def all_reduce(total: Tensor, group: dist.ProcessGroup | None = None) -> None:
    """Replace a tensor, wherever it is, by its sum over the processes of a group; None is the group of all."""
    moved = total.to(launched().device)  # where the group's backend takes it
    dist.all_reduce(moved, group=group)
    if moved is not total:
        total.copy_(moved)


def add_up(*arrays: np.ndarray) -> None:
    """Replace each array by its sum over all processes."""
    if num_processes() > 1:
        for array in arrays:
            all_reduce(torch.from_numpy(array))


def all_agree(opinion: bool, collective: bool) -> bool:
    """Tell whether every process says yes; alone, this one."""
    if not collective:
        return opinion
    opinions: list[bool] = [False] * num_processes()
    dist.all_gather_object(opinions, opinion)
    return all(opinions)


def united(names: Set[str], collective: bool) -> Set[str]:
    """Return the names that any process gives; alone, this one's."""
    if not collective:
        return names
    everybody: list[Set[str]] = [set()] * num_processes()
    dist.all_gather_object(everybody, names)
    return set().union(*everybody)

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


def require_one_process() -> None:
    """Check that nobody launched several processes of what is for one.

    Raises:
        ValueError: several were launched.
    """
    if launched().num_processes > 1:
        raise ValueError(f"expected one process, got {launched().num_processes}; launch with --num_processes 1")


def num_processes() -> int:
    """Return how many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_index() -> int:
    """Return which of them this one is."""
    return dist.get_rank() if dist.is_initialized() else 0


def agreed(work: Callable[[], _Result], collective: bool = True) -> _Result:
    """Return the result of this process's own work, once it has succeeded in every process.

    Args:
        work: may itself be collective where each of its exchanges fails in all processes or in none.
        collective: whether all processes call this; else nothing is exchanged.

    Raises:
        Exception: what was raised here. Where only others failed, a `ValueError` with their words if theirs was one,
            else a `RuntimeError` that names the process and its error.
    """
    error: Exception | None = None
    try:
        result = work()
    except Exception as caught:
        error = caught
    _exchanged(None, collective, error)
    return result


def divided(items: Sequence[_Item], work: Callable[[_Item], _Result], collective: bool) -> list[_Result]:
    """Return the result of work on each item.

    Args:
        items: the same in every process.
        work: done on each item.
        collective: whether all processes call this, share the work, and get all results; else each does all of it.

    Raises:
        ValueError: the processes have different items.
        Exception: work failed in some process, as `agreed` raises it in each.
    """
    size, index = (num_processes(), process_index()) if collective else (1, 0)
    results: dict[int, _Result] = {}
    error: Exception | None = None
    try:
        for position in range(index, len(items), size):
            results[position] = work(items[position])
    except Exception as caught:
        error = caught
    everybody = _exchanged((list(items), results), collective, error)
    _require_equal([theirs for theirs, _ in everybody], "files and names")
    merged = {position: result for _, share in everybody for position, result in share.items()}
    return [merged[position] for position in range(len(items))]


def require_same(value: Any, what: str, collective: bool = True) -> None:
    """Check that a value, which can be pickled, is the same in every process.

    Args:
        value: of this process.
        what: it is, for the message.
        collective: whether all processes call this.

    Raises:
        ValueError: it is not; in every process.
    """
    _require_equal(_exchanged(value, collective), what)


def _require_equal(values: list[Any], what: str) -> None:
    different = [index for index, value in enumerate(values) if value != values[0]]
    if different:
        raise ValueError(
            f"expected the same {what} in every process, got others in process {different[0]} than in process 0; "
            "let all of them see the same folders"
        )


def _exchanged(content: Any, collective: bool, error: Exception | None = None) -> list[Any]:
    """Return the content of every process, or raise in all where one of them has an error."""
    told: list[Any] = [(content, None)]
    if collective and num_processes() > 1:
        told = [None] * num_processes()
        problem = None if error is None else (isinstance(error, ValueError), type(error).__name__, str(error))
        dist.all_gather_object(told, (None if problem else content, problem))
    if error is not None:
        raise error
    for index, (_, problem) in enumerate(told):
        if problem is not None:
            is_value_error, kind, words = problem
            raise ValueError(words) if is_value_error else RuntimeError(f"process {index} failed: {kind}: {words}")
    return [content for content, _ in told]


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
    return all(_exchanged(opinion, collective))


def united(names: Set[str], collective: bool) -> Set[str]:
    """Return the names that any process gives; alone, this one's."""
    return set().union(*_exchanged(names, collective))

"""What one call of a module adds to its parameters' gradients, example by example, without holding them all at once.

Shapes: B examples, T positions of an example, R rows and C columns of a weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import reduce

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..engines import Sharding, device_of

_CHUNK = 1 << 20
"""Elements of one example's gradient that are held at a time: few enough for a cache, enough for a matrix product."""


class Statistic(Enum):
    """What is summed over the examples' gradients."""

    SQUARE = "square"
    """`sum_examples g_example^2`, the Fisher information's."""

    ABSOLUTE = "absolute"
    """`sum_examples |g_example|`, that of Memory Aware Synapses."""

    def add(self, total: Tensor, gradient: Tensor) -> None:
        """Add `f` of one example's gradient to a total of the same shape, in place and in the total's dtype."""
        gradient = gradient.to(total.dtype)
        if self is Statistic.SQUARE:
            total.addcmul_(gradient, gradient)
        else:
            total.add_(gradient.abs())

    def of(self, gradient: Tensor) -> Tensor:
        """Return `f(gradient)`."""
        return gradient.square() if self is Statistic.SQUARE else gradient.abs()


@dataclass(frozen=True)
class OuterProducts:
    """`gradient_b = left_b^T right_b`: of a weight that multiplies each position's input."""

    left_BTR: Tensor
    right_BTC: Tensor

    def add_to(self, gradient: Tensor, example: int, first_row: int, beta: int) -> None:
        """Write rows of one example's gradient: `gradient = beta * gradient + rows`."""
        left_TR = self.left_BTR[example, :, first_row : first_row + len(gradient)]
        gradient.addmm_(left_TR.T.to(gradient.dtype), self.right_BTC[example].to(gradient.dtype), beta=beta)


@dataclass(frozen=True)
class Rows:
    """`gradient_b[index_bt] += values_bt`: of a table whose rows are looked up."""

    index_BT: Tensor
    values_BTC: Tensor

    def add_to(self, gradient: Tensor, example: int, first_row: int, beta: int) -> None:
        """Write rows of one example's gradient: `gradient = beta * gradient + rows`."""
        if beta == 0:
            gradient.zero_()
        index_T = self.index_BT[example] - first_row
        inside_T = (index_T >= 0) & (index_T < len(gradient))
        gradient.index_add_(0, index_T[inside_T], self.values_BTC[example, inside_T].to(gradient.dtype))


@dataclass(frozen=True)
class Whole:
    """Every example's gradient as it is, of a parameter small enough to hold B of: a tensor [B, *parameter]."""

    gradients: Tensor

    def add_to(self, gradient: Tensor, example: int, first_row: int, beta: int) -> None:
        """Write rows of one example's gradient: `gradient = beta * gradient + rows`."""
        if beta == 0:
            gradient.zero_()
        gradient += self.gradients[example, first_row : first_row + len(gradient)]


Contribution = OuterProducts | Rows | Whole


class Workspace:
    """Memory for one example's gradient, a piece at a time; reused, since fresh memory is slow on a CPU."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def like(self, tensor: Tensor) -> Tensor:
        """Return memory of the tensor's shape, dtype and device, with anything in it."""
        memory = self._memory
        if (memory.dtype, memory.device) != (tensor.dtype, tensor.device) or len(memory) < tensor.numel():
            self._memory = tensor.new_empty(tensor.numel())
        return self._memory[: tensor.numel()].view(tensor.shape)


def add_statistic(
    total: Tensor,
    contributions: Sequence[Contribution],
    num_examples: int,
    statistic: Statistic,
    workspace: Workspace,
) -> None:
    r"""Add `\sum_b f(\sum_calls contribution_b)` to `total`: first the sum over a parameter's calls, then `f`.

    Args:
        total: of the parameter's shape, changed in place; its dtype is the one summed in.
        contributions: of every call that used the parameter in this batch.
        num_examples: B.
        statistic: `f`.
        workspace: where pieces of an example's gradient are formed.
    """
    if all(isinstance(c, Rows) for c in contributions) or all(isinstance(c, Whole) for c in contributions):
        _add_to_rows(total, 0, contributions, num_examples, statistic, workspace)
    else:
        rows = _rows_at_a_time(total)
        for first_row in range(0, len(total), rows):
            chunk = total[first_row : first_row + rows]
            _add_to_rows(chunk, first_row, contributions, num_examples, statistic, workspace)


def add_sharded_statistic(
    local: Tensor,
    parameter: DTensor,
    contributions: Sequence[Contribution],
    num_examples: int,
    statistic: Statistic,
    workspace: Workspace,
) -> None:
    """Add the same sum over the examples of all processes, each of which holds some rows of the total.

    It travels as gradients would, to whoever holds the rows, a few rows at a time; all processes have to call this.

    Args:
        local: the rows that this process holds, changed in place.
        parameter: whose rows they are.
        contributions: of this process's examples, to all rows.
        num_examples: B, this process's.
        statistic: `f`.
        workspace: where pieces of an example's gradient are formed.
    """
    sharding = Sharding.of(parameter)
    for owner in range(sharding.size):
        first, last = sharding.rows_of(owner)
        for start in range(first, last, _rows_at_a_time(local)):
            size = min(_rows_at_a_time(local), last - start)
            rows = torch.zeros(size, *local.shape[1:], dtype=local.dtype, device=device_of(parameter))
            _add_to_rows(rows, start, contributions, num_examples, statistic, workspace)
            dist.reduce(rows, sharding.global_rank(owner), group=sharding.group)
            if owner == sharding.index:
                local[start - first : start - first + size] += rows.to(local.device)


def _rows_at_a_time(total: Tensor) -> int:
    return max(1, _CHUNK // max(1, math.prod(total.shape[1:])))


def _add_to_rows(
    rows: Tensor,
    first_row: int,
    contributions: Sequence[Contribution],
    num_examples: int,
    statistic: Statistic,
    workspace: Workspace,
) -> None:
    """Add to some rows of a total, of which `first_row` is the first."""
    looked_up = [c for c in contributions if isinstance(c, Rows)]
    whole = [c.gradients.to(rows.dtype) for c in contributions if isinstance(c, Whole)]
    if len(looked_up) == len(contributions):
        _add_looked_up(rows, first_row, looked_up, statistic)
    elif len(whole) == len(contributions):
        gradients = reduce(torch.add, whole)
        if gradients.dim() > 1:
            gradients = gradients[:, first_row : first_row + len(rows)]
        rows += statistic.of(gradients).sum(0)
    else:
        gradient = workspace.like(rows)
        for example in range(num_examples):
            for beta, contribution in enumerate(contributions):
                contribution.add_to(gradient, example, first_row, min(beta, 1))
            statistic.add(rows, gradient)


def _add_looked_up(rows: Tensor, first_row: int, contributions: Sequence[Rows], statistic: Statistic) -> None:
    """Sum each example's values by row, then `f`, touching only rows that some example looked up."""
    keys, values = [], []
    for c in contributions:
        index_BT = c.index_BT - first_row
        example_B1 = torch.arange(len(index_BT), device=index_BT.device)[:, None]
        inside_BT = (index_BT >= 0) & (index_BT < len(rows))
        keys.append((example_B1 * len(rows) + index_BT)[inside_BT])
        values.append(c.values_BTC[inside_BT])
    unique, inverse = torch.cat(keys).unique(return_inverse=True)
    gradients = rows.new_zeros(len(unique), rows.shape[1])
    gradients.index_add_(0, inverse, torch.cat(values).to(rows.dtype))
    rows.index_add_(0, unique % len(rows), statistic.of(gradients))

"""Where a tensor's numbers are: whole in this process, or a run of its rows in each of several.

An engine that shards a parameter gives each process a part of it: a run of elements, counted row by row. Importance
and anchor are cut alike, and go over a wire or to a disk in blocks of rows, so that nobody ever holds them whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

_BLOCK_ELEMENTS = 1 << 24


class Rows(Protocol):
    """A tensor that is in memory, or one that lies on disk until its rows are asked for."""

    @property
    def shape(self) -> torch.Size:
        """Of all rows."""

    @property
    def dtype(self) -> torch.dtype:
        """Of each number."""

    def __getitem__(self, rows: Any, /) -> Tensor:
        """Return rows `[first:last]`, or all by `[...]`."""


@dataclass(frozen=True)
class Part:
    """A process's part of a tensor.

    Attributes:
        start: its first element, counted from the tensor's first.
        shape: of the part, which is contiguous in the tensor.
    """

    start: int
    shape: torch.Size

    def of(self, whole: Rows | Cut) -> Tensor:
        """Cut this part out of a whole tensor, or return the local part of one that is sharded or was cut alike.

        Raises:
            ValueError: the tensor is sharded in another way.
        """
        if isinstance(whole, Cut):
            assert whole.part == self, "an engine cuts a parameter as it did before"
            return whole.local
        if isinstance(whole, DTensor):
            if part_of(whole) != self:
                raise ValueError(
                    f"expected a tensor sharded as the parameter is, in {self}, got it in {part_of(whole)}; save the "
                    "consolidation and pass its folder"
                )
            return local_part(whole)
        if math.prod(self.shape) == math.prod(whole.shape):
            return whole[...].reshape(self.shape)
        row, end = math.prod(whole.shape[1:]), self.start + math.prod(self.shape)
        first = self.start // row
        rows = slice(first, -(-end // row)) if whole.shape else ...
        elements = whole[rows].reshape(-1)
        return elements[self.start - first * row : end - first * row].view(self.shape)


@dataclass(frozen=True)
class Cut:
    """A process's part of a tensor of which it does not hold the rest.

    Attributes:
        shape: of the whole tensor.
        part: where in it the numbers are.
        local: the numbers, in the part's shape.
    """

    shape: torch.Size
    part: Part
    local: Tensor


@dataclass(frozen=True)
class Sharding:
    """How the rows of a `DTensor` are spread over a group of processes, as `torch.chunk` would.

    Attributes:
        group: the processes; each holds one run of rows.
        size: how many they are.
        index: which of them this one is.
        num_rows: of the whole tensor.
    """

    group: dist.ProcessGroup
    size: int
    index: int
    num_rows: int

    @classmethod
    def of(cls, tensor: DTensor) -> Sharding:
        """Return how a tensor is spread.

        Raises:
            ValueError: it is split in another way than once, along its first dimension.
        """
        mesh, placements = tensor.device_mesh, tensor.placements
        split = [dim for dim, placement in enumerate(placements) if not placement.is_replicate()]
        if len(split) != 1 or type(placements[split[0]]) is not Shard or not placements[split[0]].is_shard(0):
            raise ValueError(
                f"expected parameters sharded once, along their first dimension, got the placements {placements}; "
                "use FSDP2 alone, without tensor parallelism"
            )
        (dim,) = split
        return cls(mesh.get_group(dim), mesh.size(dim), mesh.get_local_rank(dim), len(tensor))

    def rows_of(self, index: int) -> tuple[int, int]:
        """Return the first row that a process holds, and the one after its last."""
        each = -(-self.num_rows // self.size)
        return min(index * each, self.num_rows), min((index + 1) * each, self.num_rows)

    def global_rank(self, index: int) -> int:
        """Return a process's rank among all."""
        return dist.get_global_rank(self.group, index)


def is_sharded(tensor: Tensor) -> bool:
    """Tell whether this process holds a part of the tensor only."""
    return isinstance(tensor, DTensor)


def part_of(tensor: Tensor) -> Part:
    """Return which part of a parameter this process holds."""
    if not isinstance(tensor, DTensor):
        return Part(0, tensor.shape)
    sharding = Sharding.of(tensor)
    first, last = sharding.rows_of(sharding.index)
    return Part(first * math.prod(tensor.shape[1:]), torch.Size((last - first, *tensor.shape[1:])))


@torch.no_grad()
def local_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, outside autograd; in-place writes reach the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def replicas_of(tensor: Tensor) -> list[dist.ProcessGroup | None]:
    """Return the groups of processes that each hold the same numbers; None is the group of all."""
    if isinstance(tensor, DTensor):
        mesh = tensor.device_mesh
        return [mesh.get_group(dim) for dim, placement in enumerate(tensor.placements) if placement.is_replicate()]
    return [None] if dist.is_initialized() and dist.get_world_size() > 1 else []


def device_of(parameter: Tensor) -> torch.device:
    """Return where a parameter is computed with, which is not where FSDP2 offloads it to."""
    return torch.device(parameter.device_mesh.device_type) if isinstance(parameter, DTensor) else parameter.device


def sharded_like(parameter: Tensor, local: Tensor) -> Tensor:
    """Return a tensor of which this process holds `local`, sharded as a parameter is."""
    if not isinstance(parameter, DTensor):
        return local
    mesh, placements = parameter.device_mesh, parameter.placements
    if local.device.type != mesh.device_type:  # offloaded: `from_local` would move it
        whole = torch.empty_like(parameter.detach(), dtype=local.dtype)
        local_part(whole).data = local
        return whole
    return DTensor.from_local(
        local, mesh, placements, run_check=False, shape=parameter.shape, stride=parameter.stride()
    )


def row_blocks(tensor: Rows) -> Iterator[Tensor]:
    """Yield a tensor's rows in order, a bounded number at a time, on the CPU.

    Of a sharded tensor every process of its group has to ask for all blocks, and gets them all.
    """
    if not tensor.shape:
        yield tensor[...].detach().cpu()
        return
    step = max(1, _BLOCK_ELEMENTS // max(1, math.prod(tensor.shape[1:])))
    if not isinstance(tensor, DTensor):
        for first in range(0, max(1, tensor.shape[0]), step):
            yield tensor[first : first + step].detach().cpu()
        return
    sharding, local = Sharding.of(tensor), local_part(tensor)
    for owner in range(sharding.size):
        first, last = sharding.rows_of(owner)
        for start in range(0, last - first, step):
            size = min(step, last - first - start)
            if owner == sharding.index:
                block = local[start : start + size].to(tensor.device_mesh.device_type).contiguous()
            else:
                block = torch.empty(size, *tensor.shape[1:], dtype=tensor.dtype, device=tensor.device_mesh.device_type)
            dist.broadcast(block, sharding.global_rank(owner), group=sharding.group)
            yield block.cpu()

"""What tells tensors from others: hashes that do not depend on device, order or sharding."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..engines import Rows, row_blocks


def bytes_of(tensor: Tensor) -> memoryview:
    """Return a CPU tensor's bytes in row-major order."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def digest(tensor: Rows, blocks: Iterable[Tensor] | None = None) -> str:
    """Return the SHA-256 (hex) of a tensor's dtype, shape and bytes, wherever they are.

    Args:
        tensor: in memory, sharded or stored; a sharded one needs all its processes.
        blocks: its `row_blocks`, where somebody reads them anyway.
    """
    sha = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    for block in row_blocks(tensor) if blocks is None else blocks:
        sha.update(bytes_of(block))
    return sha.hexdigest()


def fingerprint(tensors: Mapping[str, Rows]) -> str:
    """Return the SHA-256 (hex) of the tensors' names, dtypes, shapes and bytes, whatever their order and device."""
    return fingerprint_of({name: digest(tensor) for name, tensor in tensors.items()})


def fingerprint_of(digests: Mapping[str, str]) -> str:
    """Return the `fingerprint` of tensors from the `digest` of each."""
    return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()

"""Several tensors of one shape, a few numbers of each at a time, so that no temporary has a model's size."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_CHUNK = 1 << 19
"""Numbers that fit a cache, with their temporaries."""
_FUSED_CHUNK = 1 << 24
"""A compiled kernel reads each number once; there the chunks only bound the memory."""


def in_chunks(first: Tensor, *others: Tensor, fused: bool = False) -> Iterator[tuple[Tensor, ...]]:
    """Yield views of equally many elements of each tensor, on the first one's device.

    Tensors in different orders of memory come whole.

    Args:
        first: any shape.
        others: of the same shape.
        fused: whether a compiled kernel works on them.
    """
    tensors, size = (first, *others), _FUSED_CHUNK if fused else _CHUNK
    if first.numel() > size and all(tensor.is_contiguous() for tensor in tensors):
        for pieces in zip(*(tensor.view(-1).split(size) for tensor in tensors), strict=True):
            yield tuple(piece.to(first.device, non_blocking=True) for piece in pieces)
    else:
        yield tuple(tensor.to(first.device) for tensor in tensors)


def displacement(weight: Tensor, anchor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `w - w*` in `dtype`; the anchor is in the weight's dtype, or in a narrower one that holds it exactly."""
    return weight.to(dtype) - anchor.to(dtype)

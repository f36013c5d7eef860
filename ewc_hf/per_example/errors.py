"""Errors that are no difference between two ways: lack of memory, and round-off."""

from __future__ import annotations

import torch
from torch import nn


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether a smaller batch is the cure, and not slower ways: on a CPU torch has no class for it."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def round_off_of(model: nn.Module) -> float:
    """Return the relative round-off of a model's coarsest parameter, frozen ones too; of float32 at least."""
    floating = [p.dtype for p in model.parameters() if p.is_floating_point()]
    return max(torch.finfo(dtype).eps for dtype in [*floating, torch.float32])

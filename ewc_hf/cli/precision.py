"""In which numbers a command loads a model."""

from __future__ import annotations

from enum import Enum


class Precision(str, Enum):
    """In which numbers a model is loaded and computes."""

    FLOAT32 = "float32"
    """As the recipes load it, whatever the checkpoint holds."""
    BFLOAT16 = "bfloat16"
    """Half the memory; to be compared with others of this precision only."""

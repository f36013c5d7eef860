"""Where an anchor lies: in the consolidation's own folder, in another one, or on the Hub."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ..engines import agreed, all_agree, is_sharded, local_part, part_of
from ..storage import StoredTensors, Tensors, local_folder, open_checkpoint

HERE = "."
"""How a consolidation refers to the checkpoint that it lies beside."""


def find_in_checkpoint(folder: Path, source: str, revision: str | None, names: list[str]) -> StoredTensors | None:
    """Find an anchor in the checkpoint that a consolidation in `folder` refers to; None where it is not in there."""
    patterns = ["model*.safetensors", "model.safetensors.index.json"]
    return open_checkpoint(folder if source == HERE else local_folder(source, revision, patterns), names)


def same_weights(checkpoint: StoredTensors, anchor: Tensors) -> bool:
    """Tell whether a checkpoint, read in the anchor's dtype, is the anchor."""

    def same(name: str) -> bool:
        weight = anchor[name]
        local = local_part(weight)
        return checkpoint[name].shape == weight.shape and torch.equal(
            part_of(weight).of(checkpoint[name]).to(local), local
        )

    collective = any(is_sharded(weight) for weight in anchor.values())
    return all_agree(agreed(lambda: all(map(same, anchor)), collective), collective)


def reference_to(source: str | os.PathLike[str], folder: Path) -> str:
    """Return how a consolidation in `folder` refers to a checkpoint: '.', an absolute path or a Hub id."""
    if not Path(source).is_dir():
        return str(source)
    return HERE if Path(source).resolve() == folder.resolve() else str(Path(source).resolve())

"""Where an anchor lies: in the consolidation's own folder, in another one, or on the Hub."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from huggingface_hub import snapshot_download

from .processes import all_agree
from .sharding import is_sharded, local_part, part_of
from .shards import StoredTensors, Tensors, open_checkpoint

HERE = "."
"""How a consolidation refers to the checkpoint that it lies beside."""


def find_in_checkpoint(folder: Path, source: str, revision: str | None, names: list[str]) -> StoredTensors | None:
    """Find an anchor in the checkpoint that a consolidation in `folder` refers to; None where it is not in there."""
    patterns = ["model*.safetensors", "model.safetensors.index.json"]
    return open_checkpoint(folder if source == HERE else local_folder(source, revision, patterns), names)


def local_folder(source: str | os.PathLike[str], revision: str | None, patterns: list[str]) -> Path:
    """Return a folder as it is, or where the files of a Hub id that match the patterns were downloaded to.

    Raises:
        ValueError: neither a folder nor a Hub id that can be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise ValueError(
            f"expected a folder or a Hub id that can be reached, got '{source}' ({type(error).__name__}: {error}); "
            "check the path, the name and the network"
        ) from error


def same_weights(checkpoint: StoredTensors, anchor: Tensors) -> bool:
    """Tell whether a checkpoint, read in the anchor's dtype, is the anchor."""

    def same(name: str) -> bool:
        weight = anchor[name]
        local = local_part(weight)
        return checkpoint[name].shape == weight.shape and torch.equal(
            part_of(weight).of(checkpoint[name]).to(local), local
        )

    together = any(is_sharded(weight) for weight in anchor.values())
    return all_agree(all(same(name) for name in anchor), together)


def reference_to(source: str | os.PathLike[str], folder: Path) -> str:
    """Return how a consolidation in `folder` refers to a checkpoint: '.', an absolute path or a Hub id."""
    if not Path(source).is_dir():
        return str(source)
    return HERE if Path(source).resolve() == folder.resolve() else str(Path(source).resolve())

"""Where an anchor lies: in the consolidation's own folder, in another one, or on the Hub."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ..engines import agreed, all_agree, is_sharded, local_part, part_of
from ..storage import StoredTensors, Tensors, local_folder

HERE = "."
"""How a consolidation refers to the checkpoint that it lies beside."""
CHECKPOINT_FILES = ["model*.safetensors", "model.safetensors.index.json"]


def is_beside(source: str) -> bool:
    """Tell whether a reference is a path, seen from the folder of the consolidation: '.', '../base'."""
    return source == HERE or source.startswith(("./", ".."))


def checkpoint_folder(folder: Path, source: str, revision: str | None, token: str | None = None) -> Path:
    """Return the folder of the checkpoint that a consolidation in `folder` refers to.

    Args:
        folder: of the consolidation.
        source: a path seen from there, an absolute one, or a Hub id.
        revision: of a Hub id.
        token: of the Hub.

    Raises:
        ValueError: no such folder, nor a Hub id that can be reached.
    """
    if is_beside(source):
        path = Path(os.path.normpath(folder.resolve() / source))
        if source != HERE and not path.is_dir():
            raise ValueError(
                f"expected the checkpoint that holds the anchor in '{path}', got no such folder; put it back "
                f"there, as seen from '{folder}', or estimate the importance again"
            )
        return path
    on_hub = revision is not None and not Path(source).is_absolute()  # even where a folder has such a name
    return local_folder(f"hf://{source}" if on_hub else source, CHECKPOINT_FILES, revision=revision, token=token)


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
    """Return how a consolidation in `folder` refers to a checkpoint: by a path seen from there, or a Hub id."""
    if not Path(source).is_dir():
        return str(source)
    path = Path(os.path.relpath(Path(source).resolve(), folder.resolve())).as_posix()
    return path if is_beside(path) else f"./{path}"

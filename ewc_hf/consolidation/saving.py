"""Writing a consolidation: whole or not at all, and the anchor only where no checkpoint holds it already."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ..engines import all_agree, process_index
from ..storage import (
    StoredTensors,
    Tensors,
    fingerprint,
    index_path,
    remove_stale_shards,
    replaced,
    write_json,
    write_shards,
)
from .anchor import HERE, find_in_checkpoint, reference_to, same_weights
from .stored import ANCHOR, CONFIG_NAME, IMPORTANCE, checked_fingerprint


def save(
    folder: Path,
    importance: Tensors,
    anchor: Tensors,
    metadata: Mapping[str, Any],
    *,
    anchor_source: str | os.PathLike[str] | None,
    anchor_revision: str | None,
    max_shard_size: int | str,
    collective: bool,
) -> None:
    """Do what `Consolidation.save_pretrained` tells.

    Args:
        folder: made where it is missing.
        importance: Omega by parameter name.
        anchor: `w*` by the same names.
        metadata: but for the anchor's source, revision and fingerprint.
        anchor_source: a checkpoint that holds the anchor; None is the folder's own, if it does.
        anchor_revision: the revision of a Hub id.
        max_shard_size: bytes, or a string like "5GB".
        collective: whether all processes call this, each with its part of the tensors.

    Raises:
        ValueError: `anchor_source` does not hold the anchor.
    """
    if collective:
        dist.barrier()  # the first process may be writing the checkpoint
    source = HERE if anchor_source is None else reference_to(anchor_source, folder)
    checkpoint = _holder_of(anchor, folder, source, anchor_revision, collective)
    if anchor_source is not None and checkpoint is None:
        raise ValueError(
            f"expected a checkpoint that holds the anchor, got '{anchor_source}' with other weights or names; "
            "leave `anchor_source` out to store the anchor itself"
        )
    if checkpoint is None:
        source, digest = ANCHOR, fingerprint(anchor)
    else:
        digest = checked_fingerprint(checkpoint, "anchor", collective)
    writes = process_index() == 0
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
    if writes or collective:
        with ExitStack() as stack:
            config = stack.enter_context(replaced(folder / CONFIG_NAME)) if writes else None
            write_shards(stack, folder, IMPORTANCE, importance, max_shard_size)
            if checkpoint is None:
                write_shards(stack, folder, ANCHOR, anchor, max_shard_size)
            if config is not None:
                reference = {"source": source, "revision": anchor_revision, "fingerprint": digest}
                write_json(config, {**metadata, "anchor": reference})
    if writes:
        if checkpoint is not None:
            index_path(folder, ANCHOR).unlink(missing_ok=True)
        remove_stale_shards(folder, IMPORTANCE)
        remove_stale_shards(folder, ANCHOR)
    if collective:
        dist.barrier()


def _holder_of(
    anchor: Tensors, folder: Path, source: str, revision: str | None, collective: bool
) -> StoredTensors | None:
    """Return the checkpoint's tensors if they are the anchor, as every process sees it."""
    found = find_in_checkpoint(folder, source, revision, list(anchor))
    everywhere = all_agree(found is not None, collective)
    return found if found is not None and everywhere and same_weights(found, anchor) else None

"""Writing a consolidation: whole or not at all, and the anchor only where no checkpoint holds it already."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ..engines import agreed, all_agree, process_index
from ..storage import (
    StoredTensors,
    Tensors,
    commit_of,
    fingerprint,
    index_path,
    open_checkpoint,
    remove_stale_shards,
    replaced,
    write_json,
    write_shards,
)
from .anchor import HERE, checkpoint_folder, is_beside, reference_to, same_weights
from .stored import ANCHOR, CONFIG_NAME, IMPORTANCE, checked_fingerprint


def save(
    folder: Path,
    importance: Tensors,
    anchor: Tensors,
    metadata: Mapping[str, Any],
    *,
    anchor_source: str | os.PathLike[str] | None,
    anchor_revision: str | None,
    token: str | None,
    max_shard_size: int | str,
    collective: bool,
) -> None:
    """Do what `Consolidation.save_pretrained` tells.

    Args:
        folder: made where it is missing.
        importance: Omega by parameter name.
        anchor: `w*` by the same names.
        metadata: but for where the anchor is stored.
        anchor_source: a checkpoint that holds the anchor; None is the folder's own, if it does.
        anchor_revision: the revision of a Hub id; its commit is recorded.
        token: of the Hub.
        max_shard_size: bytes, or a string like "5GB".
        collective: whether all processes call this, each with its part of the tensors.

    Raises:
        ValueError: `anchor_source` does not hold the anchor.
    """
    if collective:
        dist.barrier()  # the first process may be writing the checkpoint
    source = HERE if anchor_source is None else reference_to(anchor_source, folder)
    checkpoint, revision = _holder_of(anchor, folder, source, anchor_revision, token, collective)
    if anchor_source is not None and checkpoint is None:
        raise ValueError(
            f"expected a checkpoint that holds the anchor, got '{anchor_source}' with other weights or names; "
            "leave `anchor_source` out to store the anchor itself"
        )
    source = ANCHOR if checkpoint is None else source
    fingerprints = _fingerprints_of(anchor, checkpoint, metadata["anchor"], collective)
    reference = {"source": source, "revision": revision, **fingerprints}
    content = {**metadata, "anchor": reference}
    if process_index() == 0 or collective:
        agreed(lambda: _write(folder, importance, anchor, content, max_shard_size, collective), collective)


def _write(
    folder: Path,
    importance: Tensors,
    anchor: Tensors,
    metadata: Mapping[str, Any],
    max_shard_size: int | str,
    collective: bool,
) -> None:
    """Write all files, or take part in reading the tensors where another process writes."""
    writes, stores_anchor = process_index() == 0, metadata["anchor"]["source"] == ANCHOR
    with ExitStack() as stack:
        config = stack.enter_context(replaced(folder / CONFIG_NAME)) if writes else None
        write_shards(stack, folder, IMPORTANCE, importance, max_shard_size, collective)
        if stores_anchor:
            write_shards(stack, folder, ANCHOR, anchor, max_shard_size, collective)
        if config is not None:
            write_json(config, metadata)
    if writes:
        if not stores_anchor:
            index_path(folder, ANCHOR).unlink(missing_ok=True)
        remove_stale_shards(folder, IMPORTANCE)
        remove_stale_shards(folder, ANCHOR)


def _fingerprints_of(
    anchor: Tensors, checkpoint: StoredTensors | None, recorded: Mapping[str, Any], collective: bool
) -> dict[str, str]:
    """Return the anchor's fingerprint, the same however often it is saved, and the stored one where it differs.

    A checkpoint may hold the weights in another precision than that in which their importance was estimated.
    """
    stored = fingerprint(anchor) if checkpoint is None else checked_fingerprint(checkpoint, "anchor", collective)
    known = (recorded["fingerprint"], recorded.get("stored_fingerprint"))
    in_memory = stored if checkpoint is None or stored in known else fingerprint(anchor)
    lasting = recorded["fingerprint"] if in_memory in known else in_memory  # else the anchor is another one by now
    return {"fingerprint": lasting} if stored == lasting else {"fingerprint": lasting, "stored_fingerprint": stored}


def _holder_of(
    anchor: Tensors, folder: Path, source: str, revision: str | None, token: str | None, collective: bool
) -> tuple[StoredTensors | None, str | None]:
    """Return the checkpoint's tensors if they are the anchor, as every process sees it, and its commit on the Hub."""

    def find() -> tuple[StoredTensors | None, str | None]:
        checkpoint = checkpoint_folder(folder, source, revision, token)
        commit = None if is_beside(source) else commit_of(checkpoint)
        return open_checkpoint(checkpoint, list(anchor)), commit or revision

    found, commit = agreed(find, collective)
    everywhere = all_agree(found is not None, collective)
    return (found, commit) if found is not None and everywhere and same_weights(found, anchor) else (None, None)

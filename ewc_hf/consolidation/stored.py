"""A consolidation on disk, of which each process reads the parts that it needs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..engines import Rows, agreed, divided, require_same, row_blocks
from ..storage import (
    StoredTensors,
    commit_of,
    digest,
    fingerprint_of,
    hub_source,
    local_folder,
    open_checkpoint,
    open_shards,
    read_json,
    verify_shards,
)
from .anchor import CHECKPOINT_FILES, checkpoint_folder, is_beside
from .summary import Summarized

CONFIG_NAME = "ewc_config.json"
NATS_PER_TOKEN = "nats per token"
"""The unit of Fisher importance, in which `1/2 sum Omega (w - w*)^2` predicts forgetting."""
IMPORTANCE, ANCHOR = "ewc_importance", "ewc_anchor"
FORMAT_VERSION = 2
_REQUIRED = {"method", "unit", "num_examples", "num_tokens", "importance_fingerprint", "tasks"}


@dataclass(frozen=True, repr=False)
class StoredConsolidation(Summarized):
    """What a model has to remember, as `Consolidation`, left on disk until its rows are asked for.

    Attributes:
        importance: Omega by parameter name.
        anchor: `w*` by the same names.
        metadata: as `Consolidation`'s.
    """

    importance: StoredTensors
    anchor: StoredTensors
    metadata: dict[str, Any]

    @classmethod
    def open(
        cls,
        source: str | os.PathLike[str],
        revision: str | None = None,
        subfolder: str = "",
        token: str | None = None,
        collective: bool = False,
    ) -> StoredConsolidation:
        """Find a consolidation and its anchor, and check every byte of both, a block at a time.

        Args:
            source: a folder that `Consolidation.save_pretrained` wrote, or a Hub id as `owner/name` or
                `owner/name@revision/folder`.
            revision: of a Hub id: a branch, tag or commit.
            subfolder: of the folder or the Hub's repository.
            token: for private repositories; by default the one that the user has logged in with.
            collective: whether all processes call this and share the checking.

        Raises:
            ValueError: a file is missing, truncated, changed or of another format, an index names a path outside its
                folder, names or shapes of importance and anchor differ, the anchor's fingerprint is not the one
                recorded, or a number is NaN, infinite or, in the importance, negative.
        """
        folder, metadata = agreed(lambda: _found(source, revision, subfolder, token), collective)
        require_same(metadata, f"content of {CONFIG_NAME}", collective)
        recorded = metadata["anchor"]
        for stem in (IMPORTANCE, ANCHOR) if recorded["source"] == ANCHOR else (IMPORTANCE,):
            verify_shards(folder, stem, collective)
        importance, anchor = agreed(lambda: _opened(folder, recorded, token), collective)
        stored_fingerprint = recorded.get("stored_fingerprint", recorded["fingerprint"])
        if checked_fingerprint(anchor, "anchor", collective) != stored_fingerprint:
            raise _not_the_anchor(folder, recorded)
        if checked_fingerprint(importance, "importance", collective) != metadata["importance_fingerprint"]:
            raise ValueError(
                f"expected the importance of fingerprint {metadata['importance_fingerprint']} in '{folder}', "
                "got another; its shards and its config were not saved together: copy or estimate it again"
            )
        if recorded["source"] == ANCHOR or is_beside(recorded["source"]):
            path = "" if recorded["source"] == ANCHOR else recorded["source"]
            place = _seen_from_here(source, subfolder, path)
            metadata["anchor"] = {**recorded, "source": place, "revision": commit_of(folder) or revision}
        return cls(importance, anchor, metadata)


def _found(
    source: str | os.PathLike[str], revision: str | None, subfolder: str, token: str | None
) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a consolidation and its metadata; from the Hub comes no weight that is not the anchor's."""
    fetch = partial(local_folder, source, subfolder=subfolder, token=token)
    folder = fetch([CONFIG_NAME], revision=revision)
    metadata = _read_metadata(folder / CONFIG_NAME)
    anchor = metadata["anchor"]["source"]
    of_anchor = [f"{anchor}/{pattern}" for pattern in CHECKPOINT_FILES] if is_beside(anchor) else []
    return fetch(["ewc_*", *of_anchor], revision=commit_of(folder) or revision), metadata


def _seen_from_here(source: str | os.PathLike[str], subfolder: str, path: str) -> str:
    """Return the folder, or repository and folder, of what a consolidation's own place refers to by a path."""
    if not Path(source).is_dir():
        source, _, subfolder = hub_source(source, None, subfolder)
    return os.path.normpath(os.path.join(source, subfolder, path))


def _opened(folder: Path, recorded: Mapping[str, Any], token: str | None) -> tuple[StoredTensors, StoredTensors]:
    """Return importance and anchor, of the same names and shapes; neither is read."""
    importance = open_shards(folder, IMPORTANCE)
    if recorded["source"] == ANCHOR:
        anchor: StoredTensors | None = open_shards(folder, ANCHOR)
    else:
        checkpoint = checkpoint_folder(folder, recorded["source"], recorded.get("revision"), token)
        anchor = open_checkpoint(checkpoint, list(importance))
    if anchor is None:
        raise _not_the_anchor(folder, recorded)
    require_same_shapes(importance, anchor, "importance", "anchor")
    return importance, anchor


def _not_the_anchor(folder: Path, recorded: Mapping[str, Any]) -> ValueError:
    return ValueError(
        f"expected the anchor with fingerprint {recorded.get('stored_fingerprint', recorded['fingerprint'])} in "
        f"'{recorded['source']}' (seen from '{folder}'), got other weights; put the checkpoint back that the "
        "importance was estimated on, or estimate it again"
    )


def checked_fingerprint(tensors: StoredTensors, kind: str, collective: bool) -> str:
    """Return the fingerprint of stored tensors, after all their numbers were found valid.

    Args:
        tensors: by name.
        kind: "importance" or "anchor".
        collective: whether all processes call this and share the work.
    """
    names = list(tensors)

    def check(name: str) -> str:
        return digest(tensors[name], (require_valid(block, kind, name) for block in row_blocks(tensors[name])))

    return fingerprint_of(dict(zip(names, divided(names, check, collective), strict=True)))


def require_valid(numbers: Tensor, kind: str, name: str) -> Tensor:
    """Return the numbers if all are finite and, of an importance, none is negative.

    Raises:
        ValueError: one is not; a NaN would otherwise surface as a silent NaN loss.
    """
    if not torch.isfinite(numbers).all():
        raise ValueError(f"expected finite numbers, got NaN or Inf in the {kind} of '{name}'; estimate it again")
    if kind == "importance" and (numbers < 0).any():
        raise ValueError(f"expected importance >= 0, got {numbers.min().item():g} in '{name}'; clamp it at zero")
    return numbers


def require_same_shapes(a: Mapping[str, Rows], b: Mapping[str, Rows], name_of_a: str, name_of_b: str) -> None:
    """Check that two sets of tensors belong to the same model.

    Raises:
        ValueError: a name is in one of them only, or a shape differs.
    """
    if lone := sorted(a.keys() ^ b.keys()):
        raise ValueError(
            f"expected the same parameters in {name_of_a} and {name_of_b}, got {len(lone)} in only one of them, "
            f"such as '{lone[0]}'; estimate both on the same model"
        )
    for name in a:
        if a[name].shape != b[name].shape:
            raise ValueError(
                f"expected the same shape of '{name}' in {name_of_a} and {name_of_b}, got {tuple(a[name].shape)} and "
                f"{tuple(b[name].shape)}; estimate both on the same model"
            )


def _read_metadata(path: Path) -> dict[str, Any]:
    metadata = read_json(path)
    if not isinstance(metadata, dict) or metadata.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"expected format version {FORMAT_VERSION} in '{path}', got another; "
            "install the version of ewc_hf that wrote it, or estimate the importance again"
        )
    if missing := sorted(_REQUIRED - metadata.keys()):
        raise ValueError(f"expected the keys {missing} in '{path}', got a file without; estimate the importance again")
    anchor = metadata.get("anchor")
    if not isinstance(anchor, dict) or not isinstance(anchor.get("source"), str) or "fingerprint" not in anchor:
        raise ValueError(
            f"expected 'anchor' with 'source' and 'fingerprint' in '{path}', got {anchor}; "
            "estimate the importance again"
        )
    return metadata

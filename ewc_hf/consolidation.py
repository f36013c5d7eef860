"""What is stored beside a checkpoint: importance, the anchor or where it is, and metadata."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from .anchor import HERE, local_folder, read_from_checkpoint, reference_to, same_weights
from .files import read_json, replaced, write_json
from .params import fingerprint
from .shards import Tensors, index_path, read_shards, remove_stale_shards, write_shards
from .version import __version__

CONFIG_NAME = "ewc_config.json"
IMPORTANCE, ANCHOR = "ewc_importance", "ewc_anchor"
FORMAT_VERSION = 1
NATS_PER_TOKEN = "nats per token"
"""The unit of Fisher importance, in which `1/2 sum Omega (w - w*)^2` predicts forgetting."""
_REQUIRED = {"method", "unit", "num_examples", "num_tokens", "importance_fingerprint", "tasks"}


@dataclass(eq=False, repr=False)
class Consolidation:
    """What a model has to remember: how important each weight is, and the value to stay near.

    Attributes:
        importance: Omega, one non-negative number a weight, by parameter name as in `model.named_parameters()`.
        anchor: `w*`, the weights after pretraining, by the same names.
        metadata: method, label source, unit, examples, tokens, the anchor's source and fingerprint, versions and the
            tasks so far; plain JSON values.
        anchor_is_borrowed: whether the anchor still is the model's own weights, as after an estimate, and not a copy.

    Raises:
        ValueError: names or shapes of importance and anchor differ, or a value is NaN, infinite or, in the
            importance, negative; or there is no parameter.
    """

    importance: Tensors
    anchor: Tensors
    metadata: dict[str, Any]
    anchor_is_borrowed: bool = False

    def __post_init__(self) -> None:
        """Check the tensors; a NaN here would otherwise surface as a silent NaN loss."""
        if not self.importance:
            raise ValueError("expected the importance of at least one parameter, got none; estimate it again")
        _require_same_shapes(self.importance, self.anchor, "importance", "anchor")
        for kind, tensors in (("importance", self.importance), ("anchor", self.anchor)):
            for name, tensor in tensors.items():
                if not torch.isfinite(tensor).all():
                    raise ValueError(
                        f"expected finite numbers, got NaN or Inf in the {kind} of '{name}'; estimate it again"
                    )
        for name, tensor in self.importance.items():
            if (tensor < 0).any():
                raise ValueError(
                    f"expected importance >= 0, got {tensor.min().item():g} in '{name}'; clamp it at zero"
                )

    @classmethod
    def create(
        cls,
        importance: Tensors,
        anchor: Tensors,
        *,
        method: str,
        unit: str,
        num_examples: int,
        num_tokens: int,
        paths: Mapping[str, str] | None = None,
        anchor_is_borrowed: bool = False,
        **described: Any,
    ) -> Consolidation:
        """Make the consolidation of one task, with fingerprints and versions.

        Args:
            importance: Omega by parameter name.
            anchor: the weights by the same names.
            method: the estimator's name.
            unit: what 1/2 sum Omega (w-w*)^2 is measured in.
            num_examples: examples that were read.
            num_tokens: label tokens among them.
            paths: how each parameter's importance was computed.
            anchor_is_borrowed: whether the anchor is the model's own weights.
            described: whatever else tells how the importance came about.
        """
        task = {"method": method, **described, "num_examples": num_examples, "num_tokens": num_tokens, "weight": 1.0}
        metadata = {
            "format_version": FORMAT_VERSION,
            "method": method,
            **described,
            "unit": unit,
            "num_examples": num_examples,
            "num_tokens": num_tokens,
            "paths": dict(paths or {}),
            "importance_fingerprint": fingerprint(importance),
            "anchor": {"source": None, "revision": None, "fingerprint": fingerprint(anchor)},
            "tasks": [task],
            "versions": {
                "ewc_hf": __version__,
                "torch": str(torch.__version__),
                "transformers": transformers.__version__,
            },
        }
        return cls(importance, anchor, metadata, anchor_is_borrowed)

    def own_anchor(self) -> None:
        """Copy an anchor that is the model's own weights, before they are trained.

        Raises:
            ValueError: the weights have moved since the importance was estimated.
        """
        if self.anchor_is_borrowed:
            self._require_unmoved_anchor()
            self.anchor = {name: weight.clone() for name, weight in self.anchor.items()}
            self.anchor_is_borrowed = False

    def in_bfloat16(self) -> Consolidation:
        """Return the importance in bfloat16, and those parts of the anchor that bfloat16 holds without loss."""
        importance = {name: omega.bfloat16() for name, omega in self.importance.items()}
        anchor = {name: w.bfloat16() if torch.equal(w.bfloat16().to(w), w) else w for name, w in self.anchor.items()}
        return Consolidation(importance, anchor, self.metadata, self.anchor_is_borrowed)

    def _require_unmoved_anchor(self) -> None:
        if self.anchor_is_borrowed and fingerprint(self.anchor) != self.metadata["anchor"]["fingerprint"]:
            raise ValueError(
                "expected the weights that the importance was estimated on, got weights that have moved since; call "
                "`consolidation.own_anchor()` or `save_pretrained` before the model is trained"
            )

    def merge(self, new: Consolidation, decay: float = 1.0) -> Consolidation:
        """Return `decay * self + new`, anchored where `new` is: EWC over several tasks, online EWC for decay < 1.

        Args:
            new: the consolidation of the task learned last, of the same model and method.
            decay: how much of the older importance is kept, from 0 to 1.

        Raises:
            ValueError: decay outside [0, 1], or another method, unit, parameter name or shape.

        Reference: Schwarz et al. 2018, "Progress & Compress", eq. 9 (online EWC).
        """
        if not 0 <= decay <= 1:
            raise ValueError(f"expected 0 <= decay <= 1, got {decay}")
        for key in ("method", "unit"):
            if self.metadata[key] != new.metadata[key]:
                raise ValueError(
                    f"expected importances of the same {key}, got '{self.metadata[key]}' and '{new.metadata[key]}'; "
                    "estimate both in the same way"
                )
        _require_same_shapes(self.importance, new.importance, "older importance", "newer importance")
        importance = {name: decay * self.importance[name].to(omega) + omega for name, omega in new.importance.items()}
        older = [{**task, "weight": decay * task["weight"]} for task in self.metadata["tasks"]]
        metadata = {
            **new.metadata,
            "num_examples": self.metadata["num_examples"] + new.metadata["num_examples"],
            "num_tokens": self.metadata["num_tokens"] + new.metadata["num_tokens"],
            "importance_fingerprint": fingerprint(importance),
            "tasks": older + new.metadata["tasks"],
        }
        return Consolidation(importance, new.anchor, metadata, new.anchor_is_borrowed)

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        anchor_source: str | os.PathLike[str] | None = None,
        anchor_revision: str | None = None,
        max_shard_size: int | str = "5GB",
    ) -> None:
        """Write the importance, the metadata and, where no checkpoint holds it already, the anchor.

        All files appear under temporary names first; `ewc_config.json` is renamed last. `AutoModel.from_pretrained`
        ignores them all, so the folder may be a model's.

        Args:
            folder: made where it is missing.
            anchor_source: a checkpoint (folder or Hub id) that holds the anchor, to refer to instead of storing it.
                By default `folder` itself where its `model.safetensors` is the anchor, else the anchor is stored.
            anchor_revision: the revision of a Hub id.
            max_shard_size: bytes, or a string like "5GB".

        Raises:
            ValueError: `anchor_source` does not hold the anchor, or the anchor is the model's own weights, which have
                moved since the importance was estimated.
        """
        self._require_unmoved_anchor()
        folder = Path(folder)
        source = HERE if anchor_source is None else reference_to(anchor_source, folder)
        checkpoint = read_from_checkpoint(folder, source, anchor_revision, list(self.anchor))
        if checkpoint is not None and not same_weights(checkpoint, self.anchor):
            checkpoint = None
        if anchor_source is not None and checkpoint is None:
            raise ValueError(
                f"expected a checkpoint that holds the anchor, got '{anchor_source}' with other weights or names; "
                "leave `anchor_source` out to store the anchor itself"
            )
        anchor = {
            "source": ANCHOR if checkpoint is None else source,
            "revision": anchor_revision,
            "fingerprint": fingerprint(self.anchor if checkpoint is None else checkpoint),
        }
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            config = stack.enter_context(replaced(folder / CONFIG_NAME))
            write_shards(stack, folder, IMPORTANCE, self.importance, max_shard_size)
            if checkpoint is None:
                write_shards(stack, folder, ANCHOR, self.anchor, max_shard_size)
            write_json(config, {**self.metadata, "anchor": anchor})
        if checkpoint is not None:
            index_path(folder, ANCHOR).unlink(missing_ok=True)
        remove_stale_shards(folder, IMPORTANCE)
        remove_stale_shards(folder, ANCHOR)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], revision: str | None = None) -> Consolidation:
        """Read a consolidation and its anchor; only safetensors and JSON are read.

        Args:
            source: a folder that `save_pretrained` wrote, or a Hub id.
            revision: of a Hub id: a branch, tag or commit.

        Raises:
            ValueError: a file is missing, truncated, changed or of another format, an index names a path outside its
                folder, the anchor's fingerprint is not the one recorded, or a number is NaN, infinite or negative.
        """
        folder = local_folder(source, revision, ["ewc_*", "model*.safetensors", "model.safetensors.index.json"])
        metadata = _read_metadata(folder / CONFIG_NAME)
        importance, recorded = read_shards(folder, IMPORTANCE), metadata["anchor"]
        if recorded["source"] == ANCHOR:
            anchor: Tensors | None = read_shards(folder, ANCHOR)
        else:
            anchor = read_from_checkpoint(folder, recorded["source"], recorded.get("revision"), list(importance))
        if anchor is None or fingerprint(anchor) != recorded["fingerprint"]:
            raise ValueError(
                f"expected the anchor with fingerprint {recorded['fingerprint']} in '{recorded['source']}' (seen from "
                f"'{folder}'), got other weights; put the checkpoint back that the importance was estimated on, or "
                "estimate it again"
            )
        if recorded["source"] in (HERE, ANCHOR):
            metadata["anchor"] = {**recorded, "source": str(source), "revision": revision}
        consolidation = cls(importance, anchor, metadata)
        if fingerprint(importance) != metadata["importance_fingerprint"]:
            raise ValueError(
                f"expected the importance of fingerprint {metadata['importance_fingerprint']} in '{folder}', "
                "got another; its shards and its config were not saved together: copy or estimate it again"
            )
        return consolidation


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


def _require_same_shapes(a: Tensors, b: Tensors, name_of_a: str, name_of_b: str) -> None:
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

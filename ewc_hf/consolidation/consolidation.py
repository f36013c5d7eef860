"""What is stored beside a checkpoint: importance, the anchor or where it is, and metadata."""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..engines import divided, is_sharded, local_part, num_processes, part_of, sharded_like
from ..storage import Tensors, fingerprint, upload
from ..version import versions
from .saving import save
from .stored import FORMAT_VERSION, StoredConsolidation, require_same_shapes, require_valid
from .summary import Summarized


@dataclass(eq=False, repr=False)
class Consolidation(Summarized):
    """What a model has to remember: how important each weight is, and the value to stay near.

    >>> both = Consolidation.from_pretrained("old").merge(estimate_importance(model, blocks), decay=0.9)

    Attributes:
        importance: Omega, one non-negative number a weight, by parameter name as in `model.named_parameters()`.
        anchor: `w*`, the weights after pretraining, by the same names.
        metadata: method, labels, unit, examples, tokens, the anchor's source and fingerprint, versions, tasks: JSON.
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
        require_same_shapes(self.importance, self.anchor, "importance", "anchor")

        def check(_: int) -> None:
            for kind, tensors in (("importance", self.importance), ("anchor", self.anchor)):
                for name, tensor in tensors.items():
                    require_valid(local_part(tensor), kind, name)

        divided(range(num_processes() if self._is_sharded else 1), check, self._is_sharded)

    @property
    def _is_sharded(self) -> bool:
        return any(is_sharded(tensor) for tensor in self.importance.values())

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
        **details: Any,
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
            details: whatever else tells how the importance came about.
        """
        task = {"method": method, **details, "num_examples": num_examples, "num_tokens": num_tokens, "weight": 1.0}
        metadata = {
            "format_version": FORMAT_VERSION,
            "method": method,
            **details,
            "unit": unit,
            "num_examples": num_examples,
            "num_tokens": num_tokens,
            "paths": dict(paths or {}),
            "importance_fingerprint": fingerprint(importance),
            "anchor": {"source": None, "revision": None, "fingerprint": fingerprint(anchor)},
            "tasks": [task],
            "versions": versions(),
        }
        return cls(importance, anchor, metadata, anchor_is_borrowed)

    def own_anchor(self, names: Set[str] | None = None) -> None:
        """Copy an anchor that is the model's own weights, before they are trained.

        Args:
            names: of those that will be trained; None is all. The others stay the model's own.

        Raises:
            ValueError: the weights have moved since the importance was estimated.
        """
        if self.anchor_is_borrowed:
            self._require_unmoved_anchor()
            owned = self.anchor.keys() if names is None else self.anchor.keys() & names
            self.anchor = {name: w.clone() if name in owned else w for name, w in self.anchor.items()}
            self.anchor_is_borrowed = owned != self.anchor.keys()

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
        require_same_shapes(self.importance, new.importance, "older importance", "newer importance")
        importance = {}
        for name, omega in new.importance.items():
            local = local_part(omega)
            older = part_of(omega).of(self.importance[name]).to(local)
            importance[name] = sharded_like(omega, decay * older + local)
        metadata = {
            **new.metadata,
            "num_examples": self.metadata["num_examples"] + new.metadata["num_examples"],
            "num_tokens": self.metadata["num_tokens"] + new.metadata["num_tokens"],
            "importance_fingerprint": fingerprint(importance),
            "tasks": [{**t, "weight": decay * t["weight"]} for t in self.metadata["tasks"]] + new.metadata["tasks"],
        }
        return Consolidation(importance, new.anchor, metadata, new.anchor_is_borrowed)

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        anchor_source: str | os.PathLike[str] | None = None,
        anchor_revision: str | None = None,
        max_shard_size: int | str = "5GB",
        token: str | None = None,
    ) -> None:
        """Write the importance, the metadata and, where no checkpoint holds it already, the anchor.

        In several processes the first one writes. Of a sharded consolidation all have to call this, and all return
        when the files are there; of a whole one each may, and only the first one knows that they are.

        All files appear under temporary names first. The folder may be a model's: `from_pretrained` ignores them.

        Args:
            folder: made where it is missing.
            anchor_source: a checkpoint (folder or Hub id) that holds the anchor, to refer to instead of storing it.
                By default `folder` itself where its `model.safetensors` is the anchor, else the anchor is stored.
            anchor_revision: the revision of a Hub id.
            max_shard_size: bytes, or a string like "5GB".
            token: of the Hub, where `anchor_source` is private; by default that of the login.

        Raises:
            ValueError: `anchor_source` does not hold the anchor, or the anchor is the model's own weights, which have
                moved since the importance was estimated.
        """
        self._require_unmoved_anchor()
        save(
            Path(folder),
            self.importance,
            self.anchor,
            self.metadata,
            anchor_source=anchor_source,
            anchor_revision=anchor_revision,
            token=token,
            max_shard_size=max_shard_size,
            collective=self._is_sharded,
        )

    def push_to_hub(
        self, repo_id: str, *, anchor_source: str | None = None, anchor_revision: str | None = None, **options: Any
    ) -> str:
        """Upload this to a repository of the Hub, which is made where it is missing, and return the commit's URL.

        Args:
            repo_id: `owner/name`, or `name` of one's own; the old model's is the usual one.
            anchor_source: a Hub id that holds the anchor, to refer to instead of uploading it: often `repo_id` itself.
            anchor_revision: its revision; the commit is recorded.
            options: `subfolder`, `revision`, `token`, `private` and `commit_message`, see `ewc_hf.storage.upload`.

        Raises:
            ValueError: `anchor_source` is a folder or does not hold the anchor, this is sharded over processes, or the
                anchor is the model's own weights, which have moved since.
        """
        if self._is_sharded or (anchor_source is not None and Path(anchor_source).exists()):
            raise ValueError(
                "expected a consolidation that is whole in this process, and a Hub id as anchor_source, got "
                f"{'a sharded one' if self._is_sharded else repr(anchor_source)}; leave it out, or save the "
                "consolidation and upload its folder"
            )
        anchor: dict[str, Any] = {"anchor_source": anchor_source, "anchor_revision": anchor_revision}
        write = partial(self.save_pretrained, **anchor, token=options.get("token"))
        return upload(repo_id, write, ["ewc_*"], **{"commit_message": "What matters to it", **options})

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        revision: str | None = None,
        subfolder: str = "",
        token: str | None = None,
    ) -> Consolidation:
        """Read a consolidation and its anchor; only safetensors and JSON are read.

        Args:
            source: a folder that `save_pretrained` wrote, or a Hub id as `owner/name` or `owner/name@revision/folder`.
            revision: of a Hub id: a branch, tag or commit.
            subfolder: of the folder or the Hub's repository.
            token: for private repositories; by default the one that the user has logged in with.

        Raises:
            ValueError: a file is missing, truncated, changed or of another format, an index names a path outside its
                folder, the anchor's fingerprint is not the one recorded, or a number is NaN, infinite or negative.
        """
        stored = StoredConsolidation.open(source, revision, subfolder, token)
        kinds = (stored.importance, stored.anchor)
        importance, anchor = ({name: tensor[...] for name, tensor in kind.items()} for kind in kinds)
        return cls(importance, anchor, stored.metadata)

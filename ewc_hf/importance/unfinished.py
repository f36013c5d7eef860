"""An estimate on its way: how far it is, and the file from which an interrupted one goes on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from ..data import Batch, Example
from ..storage import fingerprint, open_safetensors, replaced
from ..version import versions
from .estimator import Estimator

_CONTENTS = ("model", "examples")
"""What the file tells by a hash only."""
_SECONDS_BETWEEN_SAVES = 60.0
_SHARE_OF_TIME = 0.05
"""Saving takes no more of the time than this."""


class UnfinishedEstimate:
    """Progress of an estimate, and its file where one is wanted.

    Args:
        path: the file, from which an interrupted estimate goes on; None keeps none.
        estimator: its accumulators are filled from the file.
        weights: of the model, all that the estimate depends on.
        examples: the sample, in its order.
        options: whatever else changes the estimate.

    Attributes:
        num_examples: how many are done.
        num_tokens: label tokens among them.

    Raises:
        ValueError: the file is of another model, sample, options or versions, or holds no unfinished estimate.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        estimator: Estimator,
        weights: Mapping[str, Tensor],
        examples: Sequence[Example],
        options: Mapping[str, Any],
    ) -> None:
        self.num_examples = self.num_tokens = 0
        self._batches = self._replayed = ""
        self._num_to_replay = 0
        self._path, self._estimator = None if path is None else Path(path), estimator
        self._next_save = time.monotonic() + _SECONDS_BETWEEN_SAVES
        if self._path is not None:
            contents = dict(zip(_CONTENTS, (fingerprint(weights), _content_hash(examples)), strict=True))
            self._identity = {**options, **contents, **{f"{name} version": v for name, v in versions().items()}}
            if self._path.exists():
                self._read(self._path)

    def replay(self, batch: Batch) -> bool:
        """Tell whether the file's sums hold a batch already; all batches are to be asked for, in their order.

        Raises:
            ValueError: the last one that they hold was reached, and the collator does not make them as it did.
        """
        if self._num_to_replay == 0:
            return False
        self._num_to_replay -= len(batch)
        self._replayed = _chained(self._replayed, batch)
        if self._num_to_replay == 0 and self._replayed != self._batches:
            raise ValueError(
                f"expected batches as in the unfinished estimate in '{self._path}', got others of the same "
                f"{self.num_examples} examples; use the same collator, or remove the file to begin anew"
            )
        return True

    def advance(self, batch: Batch, num_tokens: int) -> None:
        """Count a batch that was added; now and then, write the file."""
        self.num_examples += len(batch)
        self.num_tokens += num_tokens
        if self._path is not None:
            self._batches = _chained(self._batches, batch)
        if self._path is not None and time.monotonic() >= self._next_save:
            start = time.monotonic()
            self._write(self._path)
            end = time.monotonic()
            self._next_save = end + max(_SECONDS_BETWEEN_SAVES, (end - start) / _SHARE_OF_TIME)

    def remove(self) -> None:
        """Remove the file: the estimate is finished."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        progress = {"num_examples": self.num_examples, "num_tokens": self.num_tokens, "batches": self._batches}
        content = {"identity": self._identity, "progress": progress, "decisions": self._estimator.decisions}
        with replaced(path) as temporary:
            tensors = {name: tensor.cpu().contiguous() for name, tensor in self._estimator.accumulators.items()}
            save_file(tensors, temporary, metadata={key: json.dumps(value) for key, value in content.items()})

    def _read(self, path: Path) -> None:
        if path.is_dir():
            raise ValueError(
                f"expected a file for the unfinished estimate, got the folder '{path}'; name a file in it"
            )
        with open_safetensors(path) as file:
            stored = file.metadata() or {}
            if not stored.keys() >= {"identity", "progress", "decisions"}:
                raise ValueError(
                    f"expected an unfinished estimate in '{path}', got a safetensors file of something else; "
                    "choose another path"
                )
            content = {key: json.loads(value) for key, value in stored.items()}
            recorded = content["identity"]
            if recorded != self._identity:
                raise ValueError(
                    f"expected the same estimate as the unfinished one in '{path}', got another "
                    f"{_differences(self._identity, recorded)}; repeat its options with the same versions, or remove "
                    "the file to begin anew"
                )
            for name, accumulator in self._estimator.accumulators.items():
                accumulator.copy_(file.get_tensor(name))
        self._estimator.decisions = content["decisions"]
        progress = content["progress"]
        self.num_examples, self.num_tokens = progress["num_examples"], progress["num_tokens"]
        self._batches, self._num_to_replay = progress["batches"], progress["num_examples"]


def _differences(identity: Mapping[str, Any], recorded: Mapping[str, Any]) -> str:
    """Return what differs from the record, with the values where a person can read them."""
    different = [key for key in sorted(identity) if recorded.get(key) != identity[key]]
    return ", ".join(
        key if key in _CONTENTS else f"{key} ({identity[key]}, there {recorded.get(key)})" for key in different
    )


def _chained(before: str, batch: Batch) -> str:
    """Return what tells batches up to this one from others, as a collator made them, given that of those before it."""
    digest = fingerprint({**batch.inputs, "labels of the batch": batch.labels})
    return hashlib.sha256(f"{before} {digest}\n".encode()).hexdigest()


def _content_hash(examples: Sequence[Example]) -> str:
    """Return the SHA-256 of the examples' columns, in order: the same in every process."""
    digest = hashlib.sha256()
    for example in examples:
        for key in sorted(example):
            digest.update(f"{key} {_content(example[key])}\n".encode())
    return digest.hexdigest()


def _content(value: Any) -> str:
    """Return what tells a column's value from others: its text, or the hash of an array or a picture."""
    if isinstance(value, Tensor):
        return fingerprint({"": value})
    array = None if isinstance(value, list | dict) else np.asarray(value)
    if array is None or array.dtype.hasobject:
        return repr(value)
    return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"

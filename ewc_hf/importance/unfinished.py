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

from ..data import Example
from ..storage import fingerprint, open_safetensors, replaced
from .estimator import Estimator

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
        ValueError: the file is of another model, sample or options, or holds no unfinished estimate.
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
        self._path, self._estimator = None if path is None else Path(path), estimator
        self._next_save = time.monotonic() + _SECONDS_BETWEEN_SAVES
        if self._path is not None:
            self._identity = {**options, "model": fingerprint(weights), "examples": _content_hash(examples)}
            if self._path.exists():
                self._read(self._path)

    def advance(self, num_examples: int, num_tokens: int) -> None:
        """Count a batch that was added; now and then, write the file."""
        self.num_examples += num_examples
        self.num_tokens += num_tokens
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
        progress = {"num_examples": self.num_examples, "num_tokens": self.num_tokens}
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
                different = sorted(k for k in self._identity if recorded.get(k) != self._identity[k])
                raise ValueError(
                    f"expected the same estimate as the unfinished one in '{path}', got another "
                    f"{', '.join(different)}; repeat its options, or remove the file to begin anew"
                )
            for name, accumulator in self._estimator.accumulators.items():
                accumulator.copy_(file.get_tensor(name))
        self._estimator.decisions = content["decisions"]
        self.num_examples, self.num_tokens = content["progress"]["num_examples"], content["progress"]["num_tokens"]


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

"""An estimate on its way: how far it is, and the file from which an interrupted one goes on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.torch import save_file
from torch import Tensor, nn

from ..batching import Example
from ..files import replaced
from ..params import fingerprint
from ..shards import Tensors, open_safetensors

_SECONDS_BETWEEN_SAVES = 60.0
_SHARE_OF_TIME = 0.05
"""Saving takes no more of the time than this."""


class Estimator(Protocol):
    """What sums over batches."""

    accumulators: Tensors
    """All that it has summed, by name."""

    decisions: dict[str, Any]
    """All else that it goes by, as JSON has it."""


class UnfinishedEstimate:
    """Progress of an estimate, and its file where one is wanted.

    Attributes:
        num_examples: how many are done.
        num_tokens: label tokens among them.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        estimator: Estimator,
        parameters: Mapping[str, nn.Parameter],
        examples: Sequence[Example],
        options: Mapping[str, Any],
    ) -> None:
        """Begin, or go on where the file's estimate was interrupted.

        Args:
            path: the file; None keeps none.
            estimator: its accumulators are filled from the file.
            parameters: of the model.
            examples: the sample, in its order.
            options: whatever else changes the estimate.

        Raises:
            ValueError: the file is of another model, sample or options, or is no safetensors file.
        """
        self.num_examples = self.num_tokens = 0
        self._path, self._estimator = None if path is None else Path(path), estimator
        self._next_save = time.monotonic() + _SECONDS_BETWEEN_SAVES
        if self._path is not None:
            self._identity = {**options, "model": fingerprint(parameters), "examples": _content_hash(examples)}
            if self._path.is_file():
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
            tensors = {name: tensor.cpu() for name, tensor in self._estimator.accumulators.items()}
            save_file(tensors, temporary, metadata={key: json.dumps(value) for key, value in content.items()})

    def _read(self, path: Path) -> None:
        with open_safetensors(path) as file:
            content = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            if (recorded := content.get("identity")) != self._identity:
                different = sorted(k for k in self._identity if not recorded or recorded.get(k) != self._identity[k])
                raise ValueError(
                    f"expected the same estimate as the unfinished one in '{path}', got another "
                    f"{', '.join(different)}; repeat its options, or remove the file to begin anew"
                )
            for name, accumulator in self._estimator.accumulators.items():
                accumulator.copy_(file.get_tensor(name))
        self._estimator.decisions = content["decisions"]
        self.num_examples, self.num_tokens = content["progress"]["num_examples"], content["progress"]["num_tokens"]


def _content_hash(examples: Sequence[Example]) -> str:
    """Return the SHA-256 of the examples' columns, in order."""
    digest = hashlib.sha256()
    for example in examples:
        for key in sorted(example):
            value = example[key]
            array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
            digest.update(f"{key} {array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

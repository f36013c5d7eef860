"""One safetensors file: written block by block, read by rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..engines import is_sharded, row_blocks
from .fingerprint import bytes_of

_CODES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_DTYPES = {code: dtype for dtype, code in _CODES.items()}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file.

    Attributes:
        path: the file.
        name: its name in there.
        shape: its shape.
        dtype: its dtype.
    """

    path: Path
    name: str
    shape: torch.Size
    dtype: torch.dtype

    @classmethod
    def find(cls, path: Path, file: safe_open, name: str) -> StoredTensor:
        """Return a tensor of an open file.

        Raises:
            ValueError: its numbers are not floating-point ones of 16 bits or more.
        """
        rows = file.get_slice(name)
        if rows.get_dtype() not in _DTYPES:
            raise ValueError(
                f"expected '{name}' in '{path}' in one of {sorted(_DTYPES)}, got {rows.get_dtype()}; convert it first"
            )
        return cls(path, name, torch.Size(rows.get_shape()), _DTYPES[rows.get_dtype()])

    def __getitem__(self, rows: Any, /) -> Tensor:
        """Read rows `[first:last]`, or all by `[...]`; what comes back no longer depends on the file."""
        with open_safetensors(self.path) as file:
            return file.get_slice(self.name)[rows].clone()


def write_tensor_file(path: Path | None, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file and return its SHA-256; without a path, only take part in reading the tensors.

    Format: the length of the header in 8 bytes, the header in JSON, filled with spaces to a multiple of 8 bytes, then
    the tensors row by row, those of wider numbers first.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        tensor, start = tensors[name], end
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    read = [name for name in names if path is not None or is_sharded(tensors[name])]
    blocks = (block for name in read for block in row_blocks(tensors[name]))
    sha = hashlib.sha256()
    try:
        if path is not None:
            with path.open("wb") as file:
                head: list[bytes | memoryview] = [len(text).to_bytes(8, "little"), text]
                for data in chain(head, map(bytes_of, blocks)):
                    file.write(data)
                    sha.update(data)
    finally:
        for _ in blocks:  # the other processes wait until each block of a sharded tensor is taken, also after an error
            pass
    return sha.hexdigest()


def sha256(path: Path) -> str:
    """Return a file's SHA-256 as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def open_safetensors(path: Path) -> safe_open:
    """Open a safetensors file, to be used in a `with` statement.

    Raises:
        ValueError: it is not one.
    """
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"expected a safetensors file, got '{path}', unreadable ({error}); copy it again") from error

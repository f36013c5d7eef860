"""Named tensors in safetensors shards with an index, each shard's SHA-256 in it; and checkpoints of transformers.

Nothing is read before its rows are asked for, and what is written goes block by block: no process holds a whole model.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import split_state_dict_into_shards_factory
from torch import Tensor

from ..engines import agreed, divided, process_index
from .files import read_json, replaced, write_json
from .tensor_file import StoredTensor, open_safetensors, sha256, write_tensor_file

Tensors = dict[str, Tensor]

StoredTensors = dict[str, StoredTensor]


def index_path(folder: Path, stem: str) -> Path:
    """Return where the index of the shards `stem*.safetensors` lies."""
    return folder / f"{stem}.safetensors.index.json"


def write_shards(
    stack: ExitStack,
    folder: Path,
    stem: str,
    tensors: Mapping[str, Tensor],
    max_shard_size: int | str,
    collective: bool = False,
) -> None:
    """Write shards and their index under temporary names, which `stack` renames when it closes without an error.

    The first process writes, and where it fails, all that call this do.

    Args:
        stack: renames in reverse order of entry: the shards first, then their index.
        folder: where the files go; made where it is missing.
        stem: what the file names begin with.
        tensors: by name; their order is kept.
        max_shard_size: bytes, or a string like "5GB".
        collective: whether all processes call this, as they have to where they share the tensors.
    """
    plan = split_state_dict_into_shards_factory(
        dict(tensors),
        get_storage_size=lambda tensor: tensor.numel() * tensor.element_size(),
        filename_pattern=f"{stem}{{suffix}}.safetensors",
        max_shard_size=max_shard_size,
    )
    writes = process_index() == 0

    def make_folder() -> None:
        if writes:
            folder.mkdir(parents=True, exist_ok=True)

    agreed(make_folder, collective)
    index = stack.enter_context(replaced(index_path(folder, stem))) if writes else None
    digests: dict[str, str] = {}
    file_of: dict[str, str] = {}
    for filename, names in plan.filename_to_tensors.items():
        path = stack.enter_context(replaced(folder / filename)) if writes else None
        chosen = {name: tensors[name] for name in names}
        digests[filename] = agreed(partial(write_tensor_file, path, chosen), collective)
        file_of |= dict.fromkeys(names, filename)

    def write_index() -> None:
        if index is not None:
            weight_map = {name: file_of[name] for name in tensors}
            write_json(index, {"metadata": {**plan.metadata, "sha256": digests}, "weight_map": weight_map})

    agreed(write_index, collective)


def remove_stale_shards(folder: Path, stem: str) -> None:
    """Remove shards of `stem` that its index does not name, and all of them where there is no index."""
    index = index_path(folder, stem)
    kept = set(_read_weight_map(index).values()) if index.is_file() else set()
    for path in [*folder.glob(f"{stem}.safetensors"), *folder.glob(f"{stem}-*-of-*.safetensors")]:
        if path.name not in kept:
            path.unlink()


def open_shards(folder: Path, stem: str) -> StoredTensors:
    """Find what `write_shards` wrote, in the same order; none of it is read.

    Raises:
        ValueError: the index is missing or malformed or names a path outside its folder, or a shard is missing,
            truncated or lacks a tensor.
    """
    return _open(folder, _read_weight_map(index_path(folder, stem)))


def verify_shards(folder: Path, stem: str, collective: bool = False) -> None:
    """Check every shard's SHA-256 against the index.

    Args:
        folder: where the files are.
        stem: what their names begin with.
        collective: whether all processes call this and share the work.

    Raises:
        ValueError: the index is missing or malformed, names a path outside its folder or has no checksums, or a shard
            is missing or has another.
    """

    def recorded() -> dict[str, Any]:
        index = index_path(folder, stem)
        filenames = dict.fromkeys(_read_weight_map(index).values())
        try:
            digests = dict(read_json(index)["metadata"]["sha256"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"expected 'metadata.sha256' in '{index}', got none; save it again") from error
        return {filename: digests.get(filename) for filename in filenames}

    digests = agreed(recorded, collective)

    def check(filename: str) -> None:
        path = folder / filename
        if (found := sha256(path)) != digests[filename]:
            raise ValueError(
                f"expected SHA-256 {digests[filename]} of '{path}', got {found}; the shard was truncated "
                "or changed since it was saved: copy or estimate it again"
            )

    divided(list(digests), check, collective)


def open_checkpoint(folder: Path, names: list[str]) -> StoredTensors | None:
    """Find tensors in a transformers checkpoint's safetensors; None where it has none or lacks one of the names.

    Raises:
        ValueError: the checkpoint's index names a path outside its folder, or a shard is missing or unreadable.
    """
    single, index = folder / "model.safetensors", index_path(folder, "model")
    if single.is_file():
        with open_safetensors(single) as file:
            weight_map = dict.fromkeys(file.keys(), single.name)
    elif index.is_file():
        weight_map = _read_weight_map(index)
    else:
        return None
    if not set(names) <= set(weight_map):
        return None
    return _open(folder, {name: weight_map[name] for name in names})


def _read_weight_map(index: Path) -> dict[str, str]:
    """Return which file of the index's folder holds which tensor."""
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(filename, str) for filename in weight_map.values()):
        raise ValueError(f"expected a 'weight_map' from names to files in '{index}', got none; save it again")
    for filename in dict.fromkeys(weight_map.values()):
        if Path(filename).name != filename:
            raise ValueError(
                f"expected file names in the folder of '{index}', got the path '{filename}', which leads elsewhere; "
                "do not use this index"
            )
        if not (index.parent / filename).is_file():
            raise ValueError(f"expected the shard '{filename}' named in '{index}', got no such file; copy it again")
    return weight_map


def _open(folder: Path, weight_map: dict[str, str]) -> StoredTensors:
    found: StoredTensors = {}
    for filename in dict.fromkeys(weight_map.values()):
        path = folder / filename
        with open_safetensors(path) as file:
            stored = set(file.keys())
            for name in (name for name, location in weight_map.items() if location == filename):
                if name not in stored:
                    raise ValueError(f"expected the tensor '{name}' in '{path}', got none; save it again")
                found[name] = StoredTensor.find(path, file, name)
    return {name: found[name] for name in weight_map}

"""Named tensors in safetensors shards with an index, each shard's SHA-256 in it; and checkpoints of transformers."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path

from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .files import read_json, replaced, write_json

Tensors = dict[str, Tensor]


def index_path(folder: Path, stem: str) -> Path:
    """Return where the index of the shards `stem*.safetensors` lies."""
    return folder / f"{stem}.safetensors.index.json"


def write_shards(stack: ExitStack, folder: Path, stem: str, tensors: Tensors, max_shard_size: int | str) -> None:
    """Write shards and their index under temporary names, which `stack` renames when it closes without an error.

    Args:
        stack: renames in reverse order of entry: the shards first, then their index.
        folder: where the files go; it exists.
        stem: what the file names begin with.
        tensors: by name; their order is kept.
        max_shard_size: bytes, or a string like "5GB".
    """
    plan = split_torch_state_dict_into_shards(
        tensors, filename_pattern=f"{stem}{{suffix}}.safetensors", max_shard_size=max_shard_size
    )
    index = stack.enter_context(replaced(index_path(folder, stem)))
    digests = {}
    for filename, names in plan.filename_to_tensors.items():
        shard = stack.enter_context(replaced(folder / filename))
        save_file({name: tensors[name].cpu().contiguous() for name in names}, shard, metadata={"format": "pt"})
        digests[filename] = sha256(shard)
    file_of = {name: filename for filename, names in plan.filename_to_tensors.items() for name in names}
    weight_map = {name: file_of[name] for name in tensors}
    write_json(index, {"metadata": {**plan.metadata, "sha256": digests}, "weight_map": weight_map})


def remove_stale_shards(folder: Path, stem: str) -> None:
    """Remove shards of `stem` that its index does not name, and all of them where there is no index."""
    index = index_path(folder, stem)
    kept = set(_read_weight_map(index).values()) if index.is_file() else set()
    for path in [*folder.glob(f"{stem}.safetensors"), *folder.glob(f"{stem}-*-of-*.safetensors")]:
        if path.name not in kept:
            path.unlink()


def read_shards(folder: Path, stem: str) -> Tensors:
    """Read what `write_shards` wrote, in the same order, after every shard's SHA-256 was found right.

    Raises:
        ValueError: the index is missing or malformed or names a path outside its folder, or a shard is missing,
            truncated, has another SHA-256 or lacks a tensor.
    """
    index = index_path(folder, stem)
    weight_map = _read_weight_map(index)
    try:
        digests = dict(read_json(index)["metadata"]["sha256"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"expected 'metadata.sha256' in '{index}', got none; save it again") from error
    for filename in dict.fromkeys(weight_map.values()):
        path = folder / filename
        if sha256(path) != digests.get(filename):
            raise ValueError(
                f"expected SHA-256 {digests.get(filename)} of '{path}', got {sha256(path)}; the shard was truncated "
                "or changed since it was saved: copy or estimate it again"
            )
    return _read(folder, weight_map)


def read_checkpoint(folder: Path, names: list[str]) -> Tensors | None:
    """Read tensors from a transformers checkpoint's safetensors; None where it has none or lacks one of the names.

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
    return _read(folder, {name: weight_map[name] for name in names})


def sha256(path: Path) -> str:
    """Return a file's SHA-256 as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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


def open_safetensors(path: Path) -> safe_open:
    """Open a safetensors file, to be used in a `with` statement.

    Raises:
        ValueError: it is not one.
    """
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"expected a safetensors file, got '{path}', unreadable ({error}); copy it again") from error


def _read(folder: Path, weight_map: dict[str, str]) -> Tensors:
    tensors: Tensors = {}
    for filename in dict.fromkeys(weight_map.values()):
        with open_safetensors(folder / filename) as file:
            stored = set(file.keys())
            for name in (name for name, location in weight_map.items() if location == filename):
                if name not in stored:
                    raise ValueError(f"expected the tensor '{name}' in '{folder / filename}', got none; save it again")
                tensors[name] = file.get_tensor(name)
    return {name: tensors[name] for name in weight_map}

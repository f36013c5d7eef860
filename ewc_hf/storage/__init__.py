"""How do tensors lie on disk?"""

from .files import json_bytes, read_json, replaced, write_files, write_json
from .fingerprint import digest, fingerprint, fingerprint_of
from .hub import local_folder
from .markdown import markdown_table
from .shards import (
    StoredTensors,
    Tensors,
    index_path,
    open_checkpoint,
    open_shards,
    remove_stale_shards,
    verify_shards,
    write_shards,
)
from .tensor_file import open_safetensors, sha256

__all__ = [
    "StoredTensors",
    "Tensors",
    "digest",
    "fingerprint",
    "fingerprint_of",
    "index_path",
    "json_bytes",
    "local_folder",
    "markdown_table",
    "open_checkpoint",
    "open_safetensors",
    "open_shards",
    "read_json",
    "remove_stale_shards",
    "replaced",
    "sha256",
    "verify_shards",
    "write_files",
    "write_json",
    "write_shards",
]

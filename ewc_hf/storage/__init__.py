"""How do tensors lie on disk?"""

from .drawing import GREY, PALETTE, calm, colour, panels, png
from .files import json_bytes, read_json, replaced, write_files, write_json
from .fingerprint import digest, fingerprint, fingerprint_of
from .hub import commit_of, hub_arguments, hub_source, local_folder, upload
from .markdown import Tabular, markdown_table
from .page import html_page
from .pretrained import load_causal_lm, load_tokenizer
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
    "GREY",
    "PALETTE",
    "StoredTensors",
    "Tabular",
    "Tensors",
    "calm",
    "colour",
    "commit_of",
    "digest",
    "fingerprint",
    "fingerprint_of",
    "html_page",
    "hub_arguments",
    "hub_source",
    "index_path",
    "json_bytes",
    "load_causal_lm",
    "load_tokenizer",
    "local_folder",
    "markdown_table",
    "open_checkpoint",
    "open_safetensors",
    "open_shards",
    "panels",
    "png",
    "read_json",
    "remove_stale_shards",
    "replaced",
    "sha256",
    "upload",
    "verify_shards",
    "write_files",
    "write_json",
    "write_shards",
]

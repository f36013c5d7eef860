"""A folder that a model is written to: never over another one, and all at once."""

from __future__ import annotations

import os
from pathlib import Path

_KEPT = ("*.safetensors", "*.bin", "config.json", "adapter_config.json", "README.md")
"""Files beside which no model is written."""
_RECORDS = ("interpolation.json", "pruning.json")


def require_room(output: Path, for_a_model: bool) -> None:
    """Check that nothing would be lost.

    Raises:
        ValueError: `output` is a file; or it holds a model or a README.md, and a model is to be written.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"expected a folder as output_dir, got the file '{output}'; choose another name")
    held = sorted(path.name for pattern in _KEPT for path in output.glob(pattern))
    if held and for_a_model:
        raise ValueError(
            f"expected an output_dir that holds no model, got '{output}' with '{held[0]}'; nothing is written over: "
            "choose another folder"
        )


def publish(folder: Path, output: Path) -> None:
    """Move files to where they belong; the record of what was done comes last."""
    output.mkdir(exist_ok=True)
    for path in sorted(folder.iterdir(), key=lambda path: (path.name in _RECORDS, path.name)):
        os.replace(path, output / path.name)

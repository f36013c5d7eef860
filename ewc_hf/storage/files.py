"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Lend a temporary path beside `path`; rename it to `path` on success, remove it on an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, with a final newline."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: the file is missing or is not JSON.
    """
    if not path.is_file():
        raise ValueError(f"expected the file '{path.name}' in '{path.parent}', got no such file; check the folder")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"expected JSON in '{path}', got something else ({error}); save it again") from error


def write_files(folder: str | os.PathLike[str], contents: Mapping[str, bytes]) -> None:
    """Write files by name, each by way of a temporary name; make the folder where it is missing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        with replaced(folder / name) as temporary:
            temporary.write_bytes(content)


def json_bytes(content: Any) -> bytes:
    """Return `content` as indented JSON, with a final newline; what is no number or infinite becomes null."""
    return (json.dumps(_finite(content), indent=2) + "\n").encode()


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content

"""Folders, and repositories of the Hub in their place."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import snapshot_download


def local_folder(source: str | os.PathLike[str], revision: str | None, patterns: list[str]) -> Path:
    """Return a folder as it is, or where the files of a Hub id that match the patterns were downloaded to.

    Raises:
        ValueError: neither a folder nor a Hub id that can be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise ValueError(
            f"expected a folder or a Hub id that can be reached, got '{source}' ({type(error).__name__}: {error}); "
            "check the path, the name and the network"
        ) from error

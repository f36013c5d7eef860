"""Folders, and repositories of the Hub in their place: `owner/name`, or `owner/name@revision/folder`."""

from __future__ import annotations

import os
import posixpath
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

from huggingface_hub import HfApi, snapshot_download

_REPOSITORY = re.compile(
    r"(?:hf://)?(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[^/@]+))?(?:/(?P<subfolder>[^@]+))?"
)


def hub_source(
    source: str | os.PathLike[str], revision: str | None = None, subfolder: str = ""
) -> tuple[str, str | None, str]:
    """Return repository, revision and folder of what is written as `owner/name@revision/folder`, as `hf://` URLs are.

    Args:
        source: so written; a revision with a slash in it is quoted (`refs%2Fpr%2F1`).
        revision: a branch, tag or commit, in place of a written one.
        subfolder: likewise.

    Raises:
        ValueError: it is not written so.
    """
    if (written := _REPOSITORY.fullmatch(str(source).rstrip("/"))) is None:
        raise ValueError(
            f"expected a folder or a Hub id that can be reached, got '{source}'; write ids as 'owner/name' or "
            "'owner/name@revision/folder'"
        )
    found = written["revision"]
    return written["repo"], revision or (unquote(found) if found else None), subfolder or written["subfolder"] or ""


def hub_arguments(source: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the arguments by which `from_pretrained` loads a folder, or `owner/name@revision/folder`."""
    if Path(source).is_dir():
        return {"pretrained_model_name_or_path": str(source)}
    repo, revision, subfolder = hub_source(source)
    given = {"revision": revision, "subfolder": subfolder}
    return {"pretrained_model_name_or_path": repo, **{key: value for key, value in given.items() if value}}


def local_folder(
    source: str | os.PathLike[str],
    patterns: list[str],
    *,
    revision: str | None = None,
    subfolder: str = "",
    token: str | None = None,
) -> Path:
    """Return a folder as it is, or where those files of a repository on the Hub were downloaded to.

    Args:
        source: a folder, or a Hub id as `hub_source` reads it.
        patterns: of the files, seen from `subfolder`.
        revision: a branch, tag or commit.
        subfolder: of the folder or the repository.
        token: for private repositories; by default the one that the user has logged in with.

    Raises:
        ValueError: neither a folder nor a Hub id that can be reached.
    """
    if Path(source).is_dir():
        return Path(source, subfolder)
    repo, revision, subfolder = hub_source(source, revision, subfolder)
    wanted = [posixpath.normpath(posixpath.join(subfolder, pattern)) for pattern in patterns]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted, token=token), subfolder)
    except Exception as error:
        raise ValueError(
            f"expected a folder or a Hub id that can be reached, got '{source}' ({type(error).__name__}: {error}); "
            "check the path, the name and the network"
        ) from error


def commit_of(folder: Path) -> str | None:
    """Return the commit of a folder that lies in the Hub's cache; None of any other."""
    parts = folder.parts
    at = len(parts) - parts[::-1].index("snapshots") if "snapshots" in parts else len(parts)
    return parts[at] if at < len(parts) and re.fullmatch("[0-9a-f]{40}", parts[at]) else None


def upload(
    repo_id: str,
    write: Callable[[Path], None],
    patterns: list[str],
    *,
    subfolder: str = "",
    revision: str | None = None,
    token: str | None = None,
    private: bool | None = None,
    commit_message: str,
) -> str:
    """Write files into a folder and upload them to a repository of the Hub, which is made where it is missing.

    Args:
        repo_id: `owner/name`, or `name` of one's own.
        write: writes into the folder that it is given.
        patterns: of the files to upload.
        subfolder: of the repository.
        revision: a branch.
        token: by default the one that the user has logged in with.
        private: whether a new repository is private.
        commit_message: of the commit.

    Returns:
        The commit's URL.

    Raises:
        ValueError: the Hub refuses, or cannot be reached.
    """
    api = HfApi(token=token)
    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        write(Path(scratch))
        warnings.filterwarnings("ignore", ".*about to commit a data file", UserWarning)  # rows belong to their model
        try:
            commit = api.upload_folder(
                repo_id=api.create_repo(repo_id, private=private, exist_ok=True).repo_id,
                folder_path=scratch,
                path_in_repo=subfolder or None,
                allow_patterns=patterns,
                revision=revision,
                commit_message=commit_message,
            )
        except Exception as error:
            raise ValueError(
                f"expected a repository that can be written, got '{repo_id}' ({type(error).__name__}: {error}); check "
                "its name, the login and the network"
            ) from error
    return str(commit.commit_url)

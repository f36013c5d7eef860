"""Local files of documents, and what is wrong in them: the file, the line and the cause."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

_READERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}
_KINDS = {".txt", *_READERS}
_SPLITS = "train|validation|valid|val|dev|test|eval"
"""Words with which the names of files begin where a folder has several splits."""


def names_local_files(source: str) -> bool:
    """Tell whether a source is a path, and never the id of a dataset on the Hub, `owner/name:configuration`.

    A path is what exists, begins with a dot, a tilde or a slash, has a folder that exists or more than two parts, or
    ends as a file of text does.
    """
    path = Path(source)
    begins = source.startswith((".", "~", "/"))
    has_folder = len(path.parts) > 2 or (len(path.parts) == 2 and path.parent.is_dir())
    return begins or has_folder or "\\" in source or path.exists() or kind_of(path) is not None


def read_local(path: Path, split: str) -> Dataset:
    """Read a file, a folder of files of one kind, or a folder that `datasets` saved.

    Args:
        path: to it.
        split: of a folder; its files that begin with this word are read, where there are any.

    Raises:
        ValueError: nothing there that can be read, files of several kinds, or a broken one.
    """
    if not path.exists():
        raise ValueError(f"expected a file, a folder or a Hub dataset, got '{path}', which does not exist; check it")
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _saved(path, split)
    files = [path] if path.is_file() else sorted(path.iterdir())
    readable = [file for file in files if kind_of(file)]
    readable = _of_split(readable, split, path)
    kinds = {kind for file in readable if (kind := kind_of(file))}
    if len(kinds) != 1:
        raise ValueError(
            f"expected files of one of the kinds {sorted(_KINDS)} in '{path}', got {sorted(kinds) or 'none'}; "
            "name one file"
        )
    kind = kinds.pop()
    if kind != ".parquet":
        for file in readable:
            _require_utf8(file)
    if kind == ".txt":
        return Dataset.from_dict({"text": [text for file in readable if (text := _text_of(file))]})
    readable = [file for file in readable if file.stat().st_size]
    if not readable:
        return Dataset.from_dict({})
    try:
        return load_dataset(_READERS[kind], data_files=[str(file) for file in readable], split="train")
    except Exception as error:  # of pyarrow, pandas or datasets, which name neither file nor line
        faults = _broken_json(readable) if _READERS[kind] == "json" else iter(())
        if (fault := next(faults, None)) is not None:
            raise ValueError(f"expected JSON, got {fault}; mend or remove it") from error
        raise ValueError(
            f"expected at least one document in '{path}', got {type(error).__name__}: {error.__cause__ or error}; "
            "check the file and the split"
        ) from error


def _of_split(files: Sequence[Path], split: str, folder: Path) -> list[Path]:
    """Return the files whose names begin with a split, or all where no name begins with any."""

    def begin_with(words: str) -> list[Path]:
        return [file for file in files if re.match(rf"(?:{words})(?![^\W_])", file.name)]

    if folder.is_file() or not (of_splits := begin_with(f"{re.escape(split)}|{_SPLITS}")):
        return list(files)
    if not (found := begin_with(re.escape(split))):
        names = [file.name for file in of_splits]
        raise ValueError(f"expected files that begin with '{split}' in '{folder}', got {names}; name one file")
    return found


def kind_of(path: Path) -> str | None:
    """Return the suffix that tells how a file is read, without that of its compression; None for other files."""
    name = path.name.removesuffix(".gz")
    suffix = Path(name).suffix
    return suffix if suffix in _KINDS and (suffix != ".parquet" or name == path.name) else None


def _saved(path: Path, split: str) -> Dataset:
    saved = load_from_disk(path)
    if isinstance(saved, DatasetDict):
        if split not in saved:
            raise ValueError(f"expected a split '{split}' in '{path}', got {sorted(saved)}; name one of them")
        return saved[split]
    return saved


def _text_of(path: Path) -> str:
    """Return a file's text, with line ends as they are in Python and without a byte order mark."""
    with _opened(path) as file:
        return file.read().decode("utf-8-sig").replace("\r\n", "\n")


def _require_utf8(path: Path) -> None:
    """Check a file's bytes: readers of JSON put signs of replacement where they are wrong."""
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = line[error.start]
                raise ValueError(
                    f"expected text in UTF-8, got '{path}', line {number}: the byte {byte:#04x}, which is none; save "
                    "the file in UTF-8"
                ) from error


def _broken_json(paths: Sequence[Path]) -> Iterator[str]:
    """Yield the broken lines of files of lines, or of one value each."""
    for path in paths:
        with _opened(path) as file:
            text = file.read().decode("utf-8-sig")
        if _json_error(text) is not None:
            for number, line in enumerate([text] if text.lstrip().startswith("[") else text.split("\n"), 1):
                if (error := _json_error(line)) is not None:
                    yield f"'{path}', line {number + error.lineno - 1}: {error.msg} at column {error.colno}"


def _json_error(text: str) -> json.JSONDecodeError | None:
    try:
        json.loads(text.strip() or "null")
    except json.JSONDecodeError as error:
        return error
    return None


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb"))

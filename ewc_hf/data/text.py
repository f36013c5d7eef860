"""Reading documents from local files or Hub datasets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

from .chat import document_segments

_READERS = {".txt": "text", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}
_DIALOG_COLUMNS = ("turns", "messages")


def load_texts(source: str, *, split: str = "train", max_documents: int | None = None, seed: int = 0) -> Dataset:
    """Read a dataset from a local file, a folder of files, or the Hub.

    Args:
        source: a `.txt` (one document), `.json`, `.jsonl`, `.csv` or `.parquet` file, a folder of such files of one
            kind, or a Hub id. Of a folder only the files that begin with `split` are read, where there are any.
        split: the split of a Hub dataset or folder.
        max_documents: read at most so many, a random sample by `seed`.
        seed: of the sample.

    Raises:
        ValueError: nothing there that can be read, files of several kinds, or no document.
    """
    path = Path(source)
    arguments = _local_files(path, split) if path.exists() else {"path": source, "split": split}
    try:
        dataset = load_dataset(**arguments)
    except Exception as error:
        raise ValueError(
            f"expected at least one document in '{source}', got {type(error).__name__}: {error}; check the file and "
            "the split, or the Hub dataset's name and the network"
        ) from error
    if len(dataset) == 0:
        raise ValueError(f"expected at least one document in '{source}', got none; check the file and the split")
    if max_documents is not None and max_documents < len(dataset):
        dataset = dataset.shuffle(seed=seed).select(range(max_documents))
    return dataset


def _local_files(path: Path, split: str) -> dict[str, Any]:
    """Return the arguments with which `load_dataset` reads a file or a folder of files."""
    files = [path] if path.is_file() else sorted(path.iterdir())
    readable = [file for file in files if file.suffix in _READERS]
    readable = [file for file in readable if re.match(rf"{re.escape(split)}(?![^\W_])", file.name)] or readable
    kinds = {file.suffix for file in readable}
    if len(kinds) != 1:
        raise ValueError(
            f"expected files of one of the kinds {sorted(_READERS)} in '{path}', got {sorted(kinds) or 'none'}; "
            "name one file"
        )
    if not any(file.stat().st_size for file in readable):
        raise ValueError(f"expected at least one document in '{path}', got none; check the file and the split")
    reader = _READERS[kinds.pop()]
    arguments = {"path": reader, "data_files": [str(file) for file in readable], "split": "train"}
    return arguments | ({"sample_by": "document"} if reader == "text" else {})


def document_texts(dataset: Dataset, column: str | None = None) -> list[str]:
    """Return every row of a dataset as one string; dialogs are written turn by turn.

    Args:
        dataset: rows with a text column, or with dialogs (see `chat.py`).
        column: which column; by default `turns`, `messages` or `text`, whichever is there.

    Raises:
        ValueError: no such column, or a row that is neither a text nor a dialog of texts, with its number.
    """
    column = text_column(dataset, column)
    return ["".join(text for text, _ in document_segments(row, number)) for number, row in enumerate(dataset[column])]


def text_column(dataset: Dataset, column: str | None = None) -> str:
    """Return the column that holds the text: `column`, else `turns`, `messages` or `text`, whichever is there.

    Raises:
        ValueError: no such column.
    """
    candidates = (*_DIALOG_COLUMNS, "text") if column is None else (column,)
    for candidate in candidates:
        if candidate in dataset.column_names:
            return candidate
    raise ValueError(
        f"expected a column named {' or '.join(candidates)}, got {dataset.column_names}; name it by the flag"
    )

"""Rows made a batch at a time: shared over processes, each batch on disk as soon as it is done."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import InMemoryTable
from torch import Tensor
from tqdm.auto import tqdm

from ..engines import agreed, divided, num_processes, process_index
from ..storage import read_json, replaced, write_json
from .answers import Answers
from .columns import to_table

_IDENTITY = "identity.json"
_BATCHES, _HALVES = "rows-*.parquet", ".rows-*.parquet.*.tmp"


def in_batches(
    num_rows: int,
    batch_size: int,
    make: Callable[[int, int], tuple[list[Tensor], list[Answers]]],
    identity: dict[str, Any],
    resume_folder: str | os.PathLike[str] | None,
    description: str,
    progress: bool,
) -> Dataset:
    """Return rows with their answers; each process makes every so manieth batch, and all get all of them.

    Args:
        num_rows: in all.
        batch_size: rows a batch.
        make: returns the rows from one number to before another, with the answers to them; the same in any process.
        identity: all that the rows depend on.
        resume_folder: where finished batches are kept; those found there are not made again.
        description: of the progress bar.
        progress: show it.

    Raises:
        ValueError: the folder holds batches of other rows.
    """
    folder = None if resume_folder is None else Path(resume_folder)
    if folder is not None:
        agreed(lambda: _require_same(folder, identity))
    starts = list(range(0, num_rows, batch_size))
    share = len(starts[process_index() :: num_processes()])
    with tqdm(total=share, desc=description, unit="batch", disable=not progress or process_index() > 0) as bar:

        def table(start: int) -> pa.Table:
            path = None if folder is None else folder / f"rows-{start:08d}.parquet"
            if path is not None and path.is_file():
                found = pq.read_table(path)
            else:
                found = to_table(*make(start, min(start + batch_size, num_rows)))
                if path is not None:
                    with replaced(path) as temporary:
                        pq.write_table(found, temporary)
            bar.update()
            return found

        tables = divided(starts, table, collective=True)
    return Dataset(InMemoryTable(pa.concat_tables(tables)))


def _require_same(folder: Path, identity: dict[str, Any]) -> None:
    """Begin the folder, or check that it was begun for the same rows."""
    path = folder / _IDENTITY
    if not path.is_file() and not any(folder.glob(_BATCHES)):
        folder.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            write_json(temporary, identity)
    stored = read_json(path)
    if different := sorted(key for key in stored.keys() | identity.keys() if stored.get(key) != identity.get(key)):
        raise ValueError(
            f"expected the rows that were begun in '{folder}', got another {', '.join(different)}; repeat the "
            "options, or remove the folder to begin anew"
        )


def remove_batches(folder: Path) -> None:
    """Remove what `in_batches` wrote there, halves that a killed process left too; the folder if it is empty then."""
    for path in [*folder.glob(_BATCHES), *folder.glob(_HALVES), folder / _IDENTITY]:
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()

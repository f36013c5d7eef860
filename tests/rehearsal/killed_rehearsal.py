"""Rows that are made in a process that can be told when to kill itself; `test_kill.py` starts it."""

import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
from rehearsed import answered, generated, texts

from ewc_hf.rehearsal import generate

WAYS = {
    "generated": lambda folder: generated(num_rows=12, batch_size=2, resume_folder=folder),
    "answered": lambda folder: answered(texts(*range(3, 15)), batch_size=2, resume_folder=folder),
}


def make(folder: Path, way, after=None, while_writing=False):
    """Save the rows and which batches were made for them, or die once so many are: before the next, or writing it."""
    made, answers_to, write_table = [], generate.answers_to, pq.write_table

    def answer(model, rows, *options):
        if len(made) == after and not while_writing:
            die()
        made.append(len(rows))
        return answers_to(model, rows, *options)

    def write(table, path, **options):
        write_table(table, path, **options)
        if len(made) == after and while_writing:
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    generate.answers_to, pq.write_table = answer, write
    WAYS[way](folder / "unfinished").save_pretrained(folder)
    (folder / "made").write_text(str(len(made)))


def die():
    os.kill(os.getpid(), signal.SIGKILL)

"""The report of a sweep: a table of best lambdas and plateaus, the curves, and all numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ..storage import json_bytes, markdown_table, write_files
from .records import with_interval
from .sweep import Sweep
from .sweep_picture import draw_sweeps


def sweep_table(sweeps: Sequence[Sweep], score: str, decimals: int) -> list[list[str]]:
    """Return the best lambda and the plateau of each curve, the first row the head."""
    table = [["method", "penalty", "runs a lambda", "best lambda", score, "plateau of lambda"]]
    for sweep in sweeps:
        best, plateau = sweep.best, ", ".join(f"{point.ewc_lambda:g}" for point in sweep.plateau)
        runs = sorted({point.num_runs for point in sweep.points})
        counted = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
        there = with_interval(best.mean, best.interval, decimals)
        table.append([sweep.panel, sweep.title, counted, f"{best.ewc_lambda:g}", there, plateau])
    return table


def write_sweep(
    sweeps: Sequence[Sweep], folder: Path, title: str, score: str, references: Sequence[Sweep] = (), decimals: int = 3
) -> str:
    """Write `sweep.json`, `sweep.md` and `sweep.png`, each by way of a temporary name.

    Args:
        sweeps: the curves.
        folder: made where it is missing.
        title: of table and picture.
        score: what is scored, with its unit.
        references: curves of others, drawn pale beside those of the same title.
        decimals: of the scores in the table.

    Returns:
        The table, in Markdown.
    """
    note = (
        "Mean ± half-width of its 95% t-interval over runs. Plateau: the lambdas whose mean lies within the interval "
        "of the best."
    )
    text = f"# {title}\n\n{markdown_table(sweep_table(sweeps, score, decimals))}\n\n{note}\n"
    contents = {
        "sweep.md": text.encode(),
        "sweep.png": draw_sweeps(sweeps, title, score, references),
        "sweep.json": json_bytes({"score": score, "sweeps": [dataclasses.asdict(sweep) for sweep in sweeps]}),
    }
    write_files(folder, contents)
    return text

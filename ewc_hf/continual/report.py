"""The report of a grid: its curves over lambda, and each row's best beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..storage import markdown_table, replaced
from ..study import Sweep, write_sweep
from .grid import UNPROTECTED, ContinualRun, sweeps_of_runs
from .paper import Published

_SCORE = "mean accuracy"


def write_grid_report(
    runs: Sequence[ContinualRun],
    folder: Path,
    title: str,
    published: Mapping[str, Published] | None = None,
    authors: Sequence[Sweep] = (),
) -> str:
    """Write `sweep.json`, `sweep.md` and `sweep.png`, and where the paper's numbers are given `paper.md`.

    Args:
        runs: of the grid.
        folder: made where it is missing.
        title: of tables and picture.
        published: the paper's rows by name.
        authors: their curves, for the picture.

    Returns:
        The tables, in Markdown.
    """
    sweeps = sweeps_of_runs(runs)
    text = write_sweep(sweeps, folder, title, _SCORE, authors, decimals=4)
    if published:
        beside = f"# {title}: beside the paper\n\n{markdown_table(_beside(sweeps, published))}\n\n{_NOTE}\n"
        with replaced(folder / "paper.md") as temporary:
            temporary.write_text(beside, encoding="utf-8")
        text = f"{text}\n{beside}"
    return text


_NOTE = """Accuracy: mean over all tasks after the last one ± half-width of its 95% t-interval over runs; the paper's
over 20 runs. Agrees: the best mean lies within the paper's interval, widened by that of these runs."""


def _beside(sweeps: Sequence[Sweep], published: Mapping[str, Published]) -> list[list[str]]:
    table = [["method", "penalty", "best lambda", "accuracy", "paper's best lambda", "paper's accuracy", "agrees"]]
    for sweep in sweeps:
        best = sweep.best
        row = [sweep.panel, sweep.title, f"{best.ewc_lambda:g}", _accuracy(best.mean, best.interval)]
        paper = published.get(f"{sweep.panel}:{sweep.title}")
        if paper is not None:
            agrees = abs(best.mean - paper.accuracy) <= paper.interval + (best.interval or 0.0)
            row += [f"{paper.ewc_lambda:g}", _accuracy(paper.accuracy, paper.interval), "yes" if agrees else "no"]
        else:
            row += ["-", "-", "-"]
        table.append(row)
    without = next((sweep.points[0] for sweep in sweeps if sweep.points[0].ewc_lambda == 0), None)
    if without is not None:
        table.append([UNPROTECTED, "-", "0", _accuracy(without.mean, without.interval), "-", "-", "-"])
    return table


def _accuracy(mean: float, interval: float | None) -> str:
    return f"{mean:.4f}" + ("" if interval is None else f" ± {interval:.4f}")

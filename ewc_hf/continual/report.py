"""The report of a grid: its curves over lambda, and each row's best beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..importance import PruningScope
from ..storage import markdown_table, write_files
from ..study import Degradation, Sweep, with_interval, write_sweep
from .paper import PRUNED, Published
from .runs import UNPROTECTED, ContinualRun, sweeps_of_runs

_SCORE, _DECIMALS = "mean accuracy", 4
_NOTE = """Accuracy: mean over all tasks after the last one ± half-width of its 95% t-interval over runs; the paper's
over 20 runs. Agrees: the best mean lies within the paper's interval, widened by that of these runs. `decoupled`, which
the paper does not have, stands beside the better of its two: better or worse where it is so beyond both intervals."""

_PRUNING_NOTE = """Accuracy: mean ± half-width of its 95% t-interval over runs; the paper's over 10 runs. Agrees: the
mean lies within the paper's interval, widened by that of these runs."""


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
        published: the paper's rows by name; None where the protocol is another one.
        authors: their curves, for the picture.

    Returns:
        The tables, in Markdown.
    """
    sweeps = sweeps_of_runs(runs)
    text = write_sweep(sweeps, folder, title, _SCORE, authors, _DECIMALS)
    if published:
        own = {name: sweep.best.mean for sweep in sweeps if (name := f"{sweep.panel}:{sweep.title}") in published}
        papers = {name: published[name].accuracy for name in own}
        order = _best_first(_by_method(own), _by_method(papers))
        beside = _titled(title, _beside(sweeps, published), f"Best first: {order}.", _NOTE)
        write_files(folder, {"paper.md": beside.encode()})
        text = f"{text}\n{beside}"
    return text


def write_pruning_beside_paper(curves: Sequence[Degradation], folder: Path, scope: PruningScope, title: str) -> str:
    """Write `paper.md`: each criterion's accuracy beside the paper's, at the shares of pruned weights that both have.

    Args:
        curves: of the paper's fully connected network.
        folder: made where it is missing.
        scope: among which weights a criterion chose.
        title: of the table.

    Returns:
        The table, in Markdown.
    """
    table, orders = [["criterion", "pruned", "accuracy", "paper", ""]], []
    for share, papers in PRUNED[scope].items():
        own = {curve.criterion: curve.at(share) for curve in curves}
        for criterion, measured in own.items():
            cells = [with_interval(*accuracy, _DECIMALS) for accuracy in (measured, papers[criterion])]
            table.append([criterion, f"{share:.0%}", *cells, _agreement(*measured, *papers[criterion])])
        first = _best_first(
            {name: mean for name, (mean, _) in own.items()}, {n: mean for n, (mean, _) in papers.items()}
        )
        orders.append(f"Best first at {share:.0%}: {first}.")
    text = _titled(title, table, *orders, _PRUNING_NOTE)
    write_files(folder, {"paper.md": text.encode()})
    return text


def _titled(title: str, table: list[list[str]], *paragraphs: str) -> str:
    return "\n\n".join([f"# {title}: beside the paper", markdown_table(table), *paragraphs]) + "\n"


def _best_first(own: Mapping[str, float], papers: Mapping[str, float]) -> str:
    first, second = (", ".join(sorted(scores, key=scores.__getitem__, reverse=True)) for scores in (own, papers))
    return f"{first} (the paper: {'the same' if first == second else second})"


def _by_method(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the best score of each method's forms."""
    methods = dict.fromkeys(name.partition(":")[0] for name in scores)
    return {method: max(scores[name] for name in scores if name.startswith(f"{method}:")) for method in methods}


def _beside(sweeps: Sequence[Sweep], published: Mapping[str, Published]) -> list[list[str]]:
    table = [
        ["method", "penalty", "best lambda", "accuracy", "plateau", "paper's best lambda", "accuracy", "plateau", ""]
    ]
    for sweep in sweeps:
        best, plateau = sweep.best, [point.ewc_lambda for point in sweep.plateau]
        own = [f"{best.ewc_lambda:g}", with_interval(best.mean, best.interval, _DECIMALS), _range(*plateau)]
        paper, verdict = _compared(sweep, published)
        theirs = ["-", "-", "-"]
        if paper is not None:
            accuracy = with_interval(paper.accuracy, paper.interval, _DECIMALS)
            theirs = [f"{paper.ewc_lambda:g}", accuracy, _range(*paper.plateau)]
        table.append([sweep.panel, sweep.title, *own, *theirs, verdict])
    without = next((sweep.points[0] for sweep in sweeps if sweep.points[0].ewc_lambda == 0), None)
    if without is not None:
        own = ["0", with_interval(without.mean, without.interval, _DECIMALS), "-"]
        paper, accuracy, verdict = published.get(UNPROTECTED), "-", "-"
        if paper is not None:
            accuracy = with_interval(paper.accuracy, paper.interval, _DECIMALS)
            verdict = _agreement(without.mean, without.interval, paper.accuracy, paper.interval)
        table.append([UNPROTECTED, "-", *own, "0", accuracy, "-", verdict])
    return table


def _compared(sweep: Sweep, published: Mapping[str, Published]) -> tuple[Published | None, str]:
    """Return the paper's row, and how a sweep's best compares with it."""
    best = sweep.best
    paper = published.get(f"{sweep.panel}:{sweep.title}")
    if paper is not None:
        return paper, _agreement(best.mean, best.interval, paper.accuracy, paper.interval)
    others = [row for name, row in published.items() if name.partition(":")[0] == sweep.panel]
    if not others:
        return None, "-"
    paper = max(others, key=lambda row: row.accuracy)
    difference, width = best.mean - paper.accuracy, paper.interval + (best.interval or 0.0)
    return paper, "equal" if abs(difference) <= width else "better" if difference > 0 else "worse"


def _agreement(mean: float, interval: float | None, papers_mean: float, papers_interval: float) -> str:
    return "agrees" if abs(mean - papers_mean) <= papers_interval + (interval or 0.0) else "differs"


def _range(*lambdas: float) -> str:
    return f"{min(lambdas):g}" if min(lambdas) == max(lambdas) else f"{min(lambdas):g} to {max(lambdas):g}"

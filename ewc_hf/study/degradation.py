"""What a model loses as more of its weights are pruned: a curve a criterion, its table and its picture.

As figure 5 of Kutalev & Lapina 2021 (arXiv 2109.10021).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..storage import calm, colour, json_bytes, markdown_table, png, write_files
from .records import mean_and_interval, with_interval


@dataclasses.dataclass(frozen=True)
class Degradation:
    """The scores of models that were pruned by one criterion.

    Attributes:
        criterion: by which the pruned weights were chosen.
        sparsities: shares of the weights that are zero, rising.
        scores: of each run, one a sparsity.
    """

    criterion: str
    sparsities: Sequence[float]
    scores: Sequence[Sequence[float]]

    def at(self, sparsity: float) -> tuple[float, float | None]:
        """Return the mean score at a sparsity, and the half-width of its 95% t-interval.

        Raises:
            ValueError: nothing was measured there.
        """
        for position, measured in enumerate(self.sparsities):
            if abs(measured - sparsity) < 1e-9:
                return mean_and_interval([run[position] for run in self.scores])
        raise ValueError(f"expected one of the shares {list(self.sparsities)}, got {sparsity}")


def write_degradation(
    curves: Sequence[Degradation], folder: Path, title: str, score: str, shown: Sequence[float], decimals: int = 3
) -> str:
    """Write `pruning.json`, `pruning.md` and `pruning.png`, each by way of a temporary name.

    Args:
        curves: one a criterion.
        folder: made where it is missing.
        title: of table and picture.
        score: what is scored, with its unit.
        shown: the sparsities that the table has, of those that were measured.
        decimals: of the scores in the table.

    Returns:
        The table, in Markdown.
    """
    table = [["criterion", "runs", *(f"{sparsity:.0%} pruned" for sparsity in shown)]]
    for curve in curves:
        cells = [with_interval(*curve.at(sparsity), decimals) for sparsity in shown]
        table.append([curve.criterion, str(len(curve.scores)), *cells])
    note = f"The table has the {score}: mean ± half-width of its 95% t-interval over runs."
    text = f"# {title}\n\n{markdown_table(table)}\n\n{note}\n"
    record = {"score": score, "curves": [dataclasses.asdict(curve) for curve in curves]}
    picture = _draw(curves, title, score)
    write_files(folder, {"pruning.md": text.encode(), "pruning.png": picture, "pruning.json": json_bytes(record)})
    return text


def _draw(curves: Sequence[Degradation], title: str, score: str) -> bytes:
    figure = Figure(figsize=(7.5, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(curves):
        means, intervals = zip(*map(curve.at, curve.sparsities), strict=True)
        half, x = np.array([interval or 0.0 for interval in intervals]), np.multiply(100, curve.sparsities)
        axes.plot(x, means, c=colour(number), lw=1.8, label=curve.criterion)
        axes.fill_between(x, means - half, means + half, color=colour(number), alpha=0.15, lw=0)
    axes.set_xlabel("pruned weights (%)")
    axes.set_ylabel(score)
    axes.set_title(title, loc="left", weight="bold")
    axes.legend(frameon=False)
    calm(axes)
    return png(figure)

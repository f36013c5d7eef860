"""What a model loses as more of its weights are pruned: a curve a criterion, its table and its picture.

As figure 5 of Kutalev & Lapina 2021 (arXiv 2109.10021).
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..storage import markdown_table, replaced, write_json
from .records import mean_and_interval

_PALETTE = ("#000000", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00")


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
        """Return the mean score at the nearest sparsity, and the half-width of its 95% t-interval."""
        nearest = int(np.argmin(np.abs(np.subtract(self.sparsities, sparsity))))
        return mean_and_interval([run[nearest] for run in self.scores])


def write_degradation(
    curves: Sequence[Degradation], folder: Path, title: str, score: str, shown: Sequence[float], decimals: int = 3
) -> str:
    """Write `pruning.json`, `pruning.md` and `pruning.png`, each by way of a temporary name.

    Args:
        curves: one a criterion.
        folder: made where it is missing.
        title: of table and picture.
        score: what is scored, with its unit.
        shown: the sparsities that the table has.
        decimals: of the scores in the table.

    Returns:
        The table, in Markdown.
    """
    table = [["criterion", "runs", *(f"{sparsity:.0%} pruned" for sparsity in shown)]]
    for curve in curves:
        cells = []
        for mean, interval in map(curve.at, shown):
            cells.append(f"{mean:.{decimals}f}" + ("" if interval is None else f" ± {interval:.{decimals}f}"))
        table.append([curve.criterion, str(len(curve.scores)), *cells])
    note = f"The table has the {score}: mean ± half-width of its 95% t-interval over runs."
    text = f"# {title}\n\n{markdown_table(table)}\n\n{note}\n"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"pruning.md": text.encode(), "pruning.png": _draw(curves, title, score)}.items():
        with replaced(folder / name) as temporary:
            temporary.write_bytes(content)
    with replaced(folder / "pruning.json") as temporary:
        write_json(temporary, {"score": score, "curves": [dataclasses.asdict(curve) for curve in curves]})
    return text


def _draw(curves: Sequence[Degradation], title: str, score: str) -> bytes:
    figure = Figure(figsize=(7.5, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(curves):
        colour, x = _PALETTE[number % len(_PALETTE)], np.multiply(100, curve.sparsities)
        means, intervals = zip(*map(curve.at, curve.sparsities), strict=True)
        half = np.array([interval or 0.0 for interval in intervals])
        axes.plot(x, means, c=colour, lw=1.8, label=curve.criterion)
        axes.fill_between(x, means - half, means + half, color=colour, alpha=0.15, lw=0)
    everything = np.concatenate([np.ravel(curve.scores) for curve in curves])
    if everything.min() > 0 and everything.max() / everything.min() > 20:
        axes.set_yscale("log")
    axes.set_xlabel("pruned weights (%)")
    axes.set_ylabel(score)
    axes.set_title(title, loc="left", weight="bold")
    axes.grid(c="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()

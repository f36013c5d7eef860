"""The picture of a sweep: a score over lambda, a panel a group of curves."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .sweep import Sweep

_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of Okabe and Ito, colour-blind safe."""
_COLUMNS = 2


def draw_sweeps(sweeps: Sequence[Sweep], title: str, score: str, references: Sequence[Sweep] = ()) -> bytes:
    """PNG of the curves, a panel each: 95% t-intervals as bars, the best as a star, its plateau shaded.

    Lambda 0 is drawn as a dashed line, since the axis is logarithmic.

    Args:
        sweeps: the curves.
        title: of the picture.
        score: what is scored, with its unit.
        references: curves of others, drawn grey in the panel of the same title.
    """
    columns = min(_COLUMNS, len(sweeps))
    rows = math.ceil(len(sweeps) / columns)
    figure = Figure(figsize=(4.6 * columns, 0.5 + 3.2 * rows), dpi=150, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    others = {other.title: other for other in references}
    for number, sweep in enumerate(sweeps):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_title(sweep.title, loc="left", size=10)
        if number % columns == 0:
            axes.set_ylabel(score)
        if number >= len(sweeps) - columns:
            axes.set_xlabel("lambda")
        if sweep.title in others:
            _draw(axes, others[sweep.title], "#999999", "others")
        _draw(axes, sweep, _PALETTE[number % len(_PALETTE)], "measured")
        axes.set_xscale("log")
        axes.grid(c="#e6e6e6", lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _draw(axes: Axes, sweep: Sweep, colour: str, whose: str) -> None:
    points = [point for point in sweep.points if point.ewc_lambda > 0]
    x, y = np.array([[point.ewc_lambda, point.mean] for point in points]).T
    axes.errorbar(
        x, y, [point.interval or 0.0 for point in points], c=colour, marker="o", ms=4, lw=1.6, elinewidth=0.8
    )
    for point in sweep.points:
        if point.ewc_lambda == 0:
            axes.axhline(point.mean, c=colour, ls=(0, (6, 4)), lw=1)
    best, plateau = sweep.best, [point.ewc_lambda for point in sweep.plateau if point.ewc_lambda > 0]
    if plateau and whose == "measured":
        axes.axvspan(min(plateau), max(plateau), color=colour, alpha=0.12, lw=0)
    if best.ewc_lambda > 0:
        axes.plot(best.ewc_lambda, best.mean, "*", c=colour, mec="white", ms=14, zorder=5)

"""The picture of a sweep: a score over lambda, a panel a method."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from operator import attrgetter

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .records import group_by
from .sweep import Sweep

_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of Okabe and Ito, colour-blind safe."""
_COLUMNS = 2
_GREY = "#666666"


def draw_sweeps(sweeps: Sequence[Sweep], title: str, score: str, references: Sequence[Sweep] = ()) -> bytes:
    """PNG of the curves with 95% t-intervals: stars are the best, filled markers as good, hollow ones worse.

    Lambda 0 is a dashed line, since the axis is logarithmic.

    Args:
        sweeps: the curves.
        title: of the picture.
        score: what is scored, with its unit.
        references: others' curves, drawn pale in the colour of the one of the same panel and title.
    """
    panels = group_by(sweeps, attrgetter("panel"))
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.8 * columns, 0.7 + 3.2 * rows), dpi=150, layout="constrained")
    pale = "; pale: others' runs" if references else ""
    figure.suptitle(f"{title}\n", x=0.01, ha="left", weight="bold")
    legend = f"star: best; filled: within its 95% t-interval; dashed: lambda 0{pale}"
    figure.text(0.01, 1 - 0.33 / figure.get_figheight(), legend, va="top", size=9, c=_GREY)
    for number, (panel, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_title(panel, loc="left", size=10)
        axes.set_ylabel(score)
        axes.set_xlabel("lambda")
        axes.set_xscale("log")
        for colour, curve in zip(_PALETTE, curves, strict=False):
            for other in references:
                if (other.panel, other.title) == (panel, curve.title):
                    _draw_pale(axes, other, colour)
            _draw(axes, curve, colour)
        axes.grid(c="#e6e6e6", lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _draw(axes: Axes, sweep: Sweep, colour: str) -> None:
    without = [point.mean for point in sweep.points if point.ewc_lambda == 0]
    if without:
        axes.axhline(without[0], c=_GREY, ls=(0, (6, 4)), lw=1)
    points, plateau, best = [point for point in sweep.points if point.ewc_lambda > 0], sweep.plateau, sweep.best
    x, y = [point.ewc_lambda for point in points], [point.mean for point in points]
    intervals = [point.interval or 0.0 for point in points]
    axes.errorbar(x, y, intervals, c=colour, lw=1.6, elinewidth=0.8, label=sweep.title)
    for point in points:
        marker = {"marker": "*", "ms": 13} if point is best else {"marker": "o", "ms": 5}
        axes.plot(point.ewc_lambda, point.mean, mec=colour, mfc=colour if point in plateau else "white", **marker)


def _draw_pale(axes: Axes, sweep: Sweep, colour: str) -> None:
    points = [point for point in sweep.points if point.ewc_lambda > 0]
    x = [point.ewc_lambda for point in points]
    low, high = ([point.mean + sign * (point.interval or 0.0) for point in points] for sign in (-1, 1))
    axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    axes.plot(x, [point.mean for point in points], c=colour, alpha=0.4, lw=1)

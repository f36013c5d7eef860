"""The picture of an interpolation: forgetting over the task's NLL, from the old model to the tuned one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import BboxBase

from ..storage import GREY, PALETTE, png
from .budget import MaxForgetting, MaxTaskLoss
from .interpolation_result import Interpolation
from .line_points import Interval, LinePoint

_LINE, _CHOSEN, *_ = PALETTE
_ENDS, _LIMIT = "#222222", GREY

_BESIDE_CHOSEN = 0.02
"""Points so near to the chosen one, on the line, have no label of their own."""


def draw_interpolation(result: Interpolation) -> bytes:
    """PNG of the models on a line, with the 95% intervals over documents, the budget and the chosen model."""
    points, names, chosen, start, end = result.points, result.names, result.chosen, result.points[0], result.points[-1]
    figure = Figure(figsize=(8, 5.5), dpi=150)
    axes = figure.add_axes((0.09, 0.1, 0.81, 0.74))
    axes.margins(0.08)
    x, y = [point.task_nll for point in points], [point.forgetting for point in points]
    x_bars = _bars(x, [point.task_nll_interval for point in points])
    y_bars = _bars(y, [point.forgetting_interval for point in points])
    axes.errorbar(x, y, xerr=x_bars, ls="", elinewidth=0.8, c=_LINE, alpha=0.35, zorder=1)
    axes.errorbar(x, y, yerr=y_bars, c=_LINE, marker="o", ms=5, lw=1.7, elinewidth=0.8)
    axes.plot([x[0], x[-1]], [y[0], y[-1]], "D", ls="", c=_ENDS, ms=7, zorder=4)
    if isinstance(result.budget, MaxForgetting):
        axes.axhline(result.budget.max_forgetting, c=_LIMIT, ls=(0, (6, 4)), lw=1.2, zorder=0)
    if isinstance(result.budget, MaxTaskLoss):
        axes.axvline((1 + result.budget.max_task_loss) * end.task_nll, c=_LIMIT, ls=(0, (6, 4)), lw=1.2, zorder=0)
    axes.set_xlabel(f"NLL on {names.task} (nats per token; the task; lower is better)")
    axes.set_ylabel(f"forgetting on {names.retention} (nats per token; lower is better)")
    axes.set_title("Between old and tuned weights", loc="left", weight="bold", pad=34)
    _perplexities(axes, "top", 0, names.task)
    _perplexities(axes, "right", start.retention_nll, names.retention)
    axes.grid(c="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    figure.draw_without_rendering()
    taken: list[BboxBase] = []
    if chosen is not None:
        axes.plot(chosen.task_nll, chosen.forgetting, "*", c=_CHOSEN, mec="white", ms=18, zorder=5)
        _label(axes, taken, chosen, f"chosen: t = {chosen.t:.4g}", _CHOSEN, size=9)
    for point, name in ((start, "base"), (end, "tuned")):
        _label(axes, taken, point, name, _ENDS, size=9)
    for point in points[1:-1]:
        if chosen is None or abs(point.t - chosen.t) > _BESIDE_CHOSEN:
            _label(axes, taken, point, f"{point.t:.4g}", _LINE, size=7.5)
    return png(figure)


def _bars(values: Sequence[float], intervals: Sequence[Interval]) -> np.ndarray:
    """Return how far each interval reaches below and above its value, [2, points]; 0 where there is none."""
    ends = [(at, at) if interval is None else interval for at, interval in zip(values, intervals, strict=True)]
    low, high = np.transpose(ends)
    return np.maximum([values - low, high - values], 0)


def _perplexities(axes: Axes, side: str, nll_at_zero: float, text: str) -> None:
    """Write perplexities at another side, opposite to the nats."""
    other = axes.secondary_xaxis("top") if side == "top" else axes.secondary_yaxis("right")
    axis = other.xaxis if side == "top" else other.yaxis
    axis.set_major_formatter(lambda nats, _: f"{math.exp(min(nll_at_zero + nats, 700)):.3g}")
    axis.set_label_text(f"perplexity per token on {text}")


def _label(axes: Axes, taken: list[BboxBase], point: LinePoint, text: str, colour: str, size: float) -> None:
    """Write above or below a point, unless other labels are at both places."""
    for dy in (6, -14):
        place = (point.task_nll, point.forgetting)
        label = axes.annotate(text, place, (8, dy), textcoords="offset points", c=colour, size=size, zorder=6)
        box = label.get_window_extent()
        if not box.count_overlaps(taken):
            taken.append(box)
            return
        label.remove()

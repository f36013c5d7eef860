"""The picture of a sweep: a score over lambda, a panel a method."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..storage import GREY, colour, panels, png
from .records import group_by
from .sweep import Sweep


def draw_sweeps(sweeps: Sequence[Sweep], title: str, score: str, references: Sequence[Sweep] = ()) -> bytes:
    """PNG of the curves with 95% t-intervals: stars are the best, filled markers as good, hollow ones worse.

    Lambda 0 is a dashed line, since the axis is logarithmic; where it is far from all others only the legend tells it.

    Args:
        sweeps: the curves.
        title: of the picture.
        score: what is scored, with its unit.
        references: others' curves, drawn pale in the colour of the one of the same panel and title.
    """
    by_panel = group_by(sweeps, attrgetter("panel"))
    pale = "; pale: others' runs" if references else ""
    legend = f"star: best; filled: within its 95% t-interval; dashed: lambda 0{pale}"
    figure, drawn = panels(title, len(by_panel), 3.7, legend)
    for axes, (panel, curves) in zip(drawn, by_panel.items(), strict=True):
        axes.set_title(panel, loc="left", size=10)
        axes.set_ylabel(score)
        axes.set_xlabel("lambda")
        axes.set_xscale("log")
        for position, curve in enumerate(curves):
            for other in references:
                if (other.panel, other.title) == (panel, curve.title):
                    _draw_pale(axes, other, colour(position))
            _draw(axes, curve, colour(position))
        _frame(axes, curves)
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    return png(figure)


def _frame(axes: Axes, curves: Sequence[Sweep]) -> None:
    """Show the curves and little more, with numbers at round lambdas."""
    points = [point for curve in curves for point in curve.points if point.ewc_lambda > 0]
    if not points:
        return
    lambdas = [point.ewc_lambda for point in points]
    low = min(point.mean - (point.interval or 0.0) for point in points)
    high = max(point.mean + (point.interval or 0.0) for point in points)
    margin = 0.4 * (high - low) or 0.01 * abs(high)
    without = {point.mean for curve in curves for point in curve.points if point.ewc_lambda == 0}
    for mean in without:
        is_near = low - 4 * margin < mean < high + 4 * margin
        low, high = (min(low, mean), max(high, mean)) if is_near else (low, high)
        label = f"lambda 0: {mean:.3g}" + ("" if is_near else ", off the scale")
        axes.plot([], [], c=GREY, ls=(0, (6, 4)), lw=1, label=label)
    axes.set_xlim(min(lambdas) / 1.4, max(lambdas) * 1.4)
    axes.set_ylim(low - margin, high + margin)
    spans_decades = max(lambdas) > 150 * min(lambdas)
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if spans_decades else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw(axes: Axes, sweep: Sweep, c: str) -> None:
    plateau, best = sweep.plateau, sweep.best
    without = [point.mean for point in sweep.points if point.ewc_lambda == 0]
    if without:
        axes.axhline(without[0], c=GREY, ls=(0, (6, 4)), lw=1)
    points = [point for point in sweep.points if point.ewc_lambda > 0]
    x, y = [point.ewc_lambda for point in points], [point.mean for point in points]
    intervals = [point.interval or 0.0 for point in points]
    axes.errorbar(x, y, intervals, c=c, lw=1.6, elinewidth=0.8, label=sweep.title)
    for point in points:
        inside = c if point in plateau else "white"
        marker, size = ("*", 13) if point is best else ("o", 5)
        axes.plot(point.ewc_lambda, point.mean, marker=marker, ms=size, mec=c, mfc=inside)


def _draw_pale(axes: Axes, sweep: Sweep, c: str) -> None:
    points = [point for point in sweep.points if point.ewc_lambda > 0]
    x = [point.ewc_lambda for point in points]
    low, high = ([point.mean + sign * (point.interval or 0.0) for point in points] for sign in (-1, 1))
    axes.fill_between(x, low, high, color=c, alpha=0.15, lw=0)
    axes.plot(x, [point.mean for point in points], c=c, alpha=0.4, lw=1)

"""The picture of a study: perplexity on the retention text over perplexity on the task, a curve a method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..storage import GREY, calm, png
from .labels import place_labels
from .lines import PLAIN_COLOUR, Line, labels_of, lines_of, point_of
from .records import PLAIN, PRETRAINED, RunRecord, TextNames, group_by, pretrained_of

CURVES_A_PICTURE = 8
_WIDTH, _HEIGHT = 8.0, 4.9  # inches, of the picture and of what is above its legend
_LEGEND_ROW = 0.19  # inches
_LEFT = 0.62  # inches, of what is beside the axes
_HALF_A_ROW = 44  # letters, of a title in the legend
_Frame = tuple[tuple[float, float], tuple[float, float]]


def draw_pictures(records: Sequence[RunRecord], names: TextNames, title: str) -> list[bytes]:
    """PNGs of perplexity on the retention text over that on the task, a curve over strengths for each method.

    A curve begins at its smallest strength, as nothing is known between that and plain fine-tuning; runs on no curve
    are single points. The frame, alike in all pictures, is that of the trained models: interpolated ones, thin
    and without bars, may leave it.

    Returns:
        One picture, or two where there are more than `CURVES_A_PICTURE` curves and points: the first ones in order of
        appearance, and all others.
    """
    lines, frame = lines_of(records), _frame(records)
    pictures = [_draw(lines[:CURVES_A_PICTURE], records, frame, names, title)]
    if others := lines[CURVES_A_PICTURE:]:
        pictures.append(_draw(others, records, frame, names, f"{title}, continued"))
    return pictures


def _frame(records: Sequence[RunRecord]) -> _Frame:
    """Limits in x and y that hold the trained models; the interpolated ones too, if only plain is trained.

    Models that are worse on the task than the pretrained one have learned nothing, and may leave it to the others.
    """
    start = pretrained_of(records)
    tuned = [run for run in records if run.name != PRETRAINED]
    trained = [run for run in tuned if run.fraction == 1]
    shown = trained if any(run.name != PLAIN for run in trained) else tuned
    points = [point_of(runs) for runs in group_by(shown, attrgetter("name")).values()]
    points = [point for point in points if all(map(math.isfinite, point))]
    points = [point for point in points if point[0] < start.task_perplexity] or points
    x, y, dx, dy = np.transpose(points or [point_of([start])])
    left, right = min(x - dx), max(x + dx)
    if start.task_perplexity < right + 0.25 * (right - left):
        right = max(right, start.task_perplexity)
    bottom, top = min(*(y - dy), start.retention_perplexity), max(*(y + dy), start.retention_perplexity)
    return _widened(left, right), _widened(bottom, top)


def _widened(low: float, high: float) -> tuple[float, float]:
    margin = 0.06 * (high - low) or 0.05 * high
    return low - margin, high + margin


def _draw(lines: Sequence[Line], records: Sequence[RunRecord], frame: _Frame, names: TextNames, title: str) -> bytes:
    columns = 2 if all(len(line.title) <= _HALF_A_ROW for line in lines) else 1
    legend = _LEGEND_ROW * (2 + math.ceil(len(lines) / columns)) if lines else 0.0
    height = _HEIGHT + legend
    figure = Figure(figsize=(_WIDTH, height), dpi=150)
    axes = figure.add_axes((_LEFT / _WIDTH, (legend + 0.52) / height, 0.907, (_HEIGHT - 0.86) / height))
    axes.set(xlim=frame[0], ylim=frame[1])
    axes.set_xlabel(f"perplexity per token on {names.task} (the task; lower is better)")
    axes.set_ylabel(f"perplexity per token on {names.retention} (lower is less forgotten)")
    axes.set_title(title, loc="left", weight="bold")
    calm(axes)
    _draw_pretrained(axes, pretrained_of(records), names)
    _draw_plain(axes, [run for run in records if run.name == PLAIN])
    for line in lines:
        _draw_line(axes, line)
    if lines:
        dotted = "; dotted: interpolated with pretrained" if any(line.interpolated for line in lines) else ""
        figure.legend(
            loc="lower left",
            bbox_to_anchor=(_LEFT / _WIDTH - 0.012, 0.0),
            ncols=columns,
            fontsize=9,
            title=f"beside points: strength; bars: 95% t-interval over seeds{dotted}",
            title_fontsize=9,
            alignment="left",
            handlelength=3.2,
            frameon=False,
        )
        figure.draw_without_rendering()
        place_labels(axes, labels_of(lines))
    return png(figure)


def _draw_pretrained(axes: Axes, start: RunRecord, names: TextNames) -> None:
    """A line at what the pretrained model is on the retention text, and its point where that is not far away."""
    far = start.task_perplexity > axes.get_xlim()[1]
    axes.hlines(start.retention_perplexity, *axes.get_xlim(), colors=GREY, linestyles=(0, (6, 4)), lw=1.2, zorder=1)
    if not far:
        axes.plot(start.task_perplexity, start.retention_perplexity, "D", c=GREY, ms=7)
    place = f"{start.retention_perplexity:.1f} on {names.retention}, {start.task_perplexity:.1f} on {names.task}"
    axes.annotate(
        f"pretrained: {place}{' →' if far else ''}",
        (0.99, start.retention_perplexity),
        (0, -4),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="right",
        va="top",
        size=9,
        c="#444444",
    )


def _draw_plain(axes: Axes, plain: Sequence[RunRecord]) -> None:
    for x, y, dx, dy in [point_of(plain)] if plain else []:
        axes.errorbar(x, y, dy, dx, "*", ms=18, c=PLAIN_COLOUR, mec="white", elinewidth=0.8, zorder=5)
        side: dict[str, Any] = {"ha": "left"} if x < np.mean(axes.get_xlim()) else {"ha": "right"}
        offset = (11 if side["ha"] == "left" else -11, 4)
        axes.annotate("plain fine-tuning", (x, y), offset, textcoords="offset points", weight="bold", **side)


def _draw_line(axes: Axes, line: Line) -> None:
    x, y, dx, dy = np.transpose([point_of(runs) for runs in line.settings])
    if not line.interpolated:
        axes.errorbar(x, y, dy, dx, fmt="none", ecolor=(line.colour, 0.5), elinewidth=0.8)
    axes.plot(x, y, c=line.colour, label=line.title, **line.style)

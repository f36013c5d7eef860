"""The picture of a study: perplexity on the retention text over perplexity on the task, a curve a method."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import BboxBase

from ..importance import Method
from ..penalty import Coupling
from .curves import curves_of
from .records import PLAIN, RunRecord, TextNames, group_by, mean_and_interval, pretrained_of

_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito: colour-blind safe
_SIDES = ((1, 1), (-1, -1), (1, -1), (-1, 1), (0, 1), (0, -1), (1, 0), (-1, 0))  # of a point, tried for its label


def _point(runs: Sequence[RunRecord]) -> tuple[float, float, float, float]:
    """(x, y, half-width in x, half-width in y) of a setting in the picture."""
    x, dx = mean_and_interval([run.task_perplexity for run in runs])
    y, dy = mean_and_interval([run.retention_perplexity for run in runs])
    return x, y, dx or 0.0, dy or 0.0


def draw_picture(records: Sequence[RunRecord], names: TextNames, title: str) -> bytes:
    """PNG of perplexity on the retention text over that on the task: a curve over lambda for each method.

    A curve begins at its smallest strength, as nothing is known between that and plain fine-tuning; a method with one
    strength and settings without a lambda are single points.
    """
    figure = Figure(figsize=(8, 5.5), dpi=150)
    axes = figure.add_axes((0.085, 0.105, 0.895, 0.82))
    axes.margins(0.06)
    start = pretrained_of(records)
    plain = [run for run in records if run.name == PLAIN]
    for x, y, dx, dy in [_point(plain)] if plain else []:
        axes.errorbar(x, y, dy, dx, "*", ms=18, c="#222222", mec="white", elinewidth=0.8, zorder=5)
        axes.annotate("plain fine-tuning", (x, y), (11, 4), textcoords="offset points", weight="bold", c="#222222")
    curves, labels = curves_of(records), []
    on_curves = {run.name for runs in curves.values() for run in runs}
    others = [run for run in records if run.name not in {start.name, PLAIN, *on_curves}]
    shown = [*itertools.chain.from_iterable(curves.values()), *others]
    methods = dict.fromkeys([*(method.value for method in Method), *(run.method for run in shown)])
    colours = dict(zip(methods, itertools.cycle(_PALETTE), strict=False))
    for curve, runs in curves.items():
        colour, settings = colours[runs[0].method], group_by(runs, attrgetter("label"))
        points = [_point(seeds) for seeds in settings.values()]
        labels += [(at, point[:2], colour) for at, point in zip(settings, points, strict=True)]
        x, y, dx, dy = np.transpose(points)
        decoupled = runs[0].overrides.get("ewc_coupling") == Coupling.DECOUPLED
        style: dict[str, Any] = {"ls": "--", "mfc": "white"} if decoupled else {"ls": "-"}
        axes.errorbar(x, y, dy, dx, c=colour, marker="o", ms=5, lw=1.7, elinewidth=0.8, label=curve, **style)
    for name, runs in group_by(others, attrgetter("name")).items():
        x, y, dx, dy = _point(runs)
        axes.errorbar(x, y, dy, dx, c=colours[runs[0].method], marker="s", ms=5, ls="", elinewidth=0.8, label=name)
    left, right = axes.get_xlim()
    far = axes.has_data() and start.task_perplexity > right + 0.25 * (right - left)
    if not far:
        axes.plot(start.task_perplexity, start.retention_perplexity, "D", c="#666666", ms=7)
    place = f"{start.retention_perplexity:.1f} on {names.retention}, {start.task_perplexity:.1f} on {names.task}"
    note = f"pretrained: {place}{' →' if far else ''}"
    axes.set_xlim(axes.get_xlim())
    axes.hlines(
        start.retention_perplexity, *axes.get_xlim(), colors="#666666", linestyles=(0, (6, 4)), lw=1.2, zorder=1
    )
    beside: dict[str, Any] = {
        "xycoords": axes.get_yaxis_transform(),
        "textcoords": "offset points",
        "ha": "right",
        "va": "top",
    }
    axes.annotate(note, (0.99, start.retention_perplexity), (0, -5), size=9, c="#444444", **beside)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom - 0.04 * (top - bottom), top)
    axes.set_xlabel(f"perplexity per token on {names.task} (the task; lower is better)")
    axes.set_ylabel(f"perplexity per token on {names.retention} (lower is less forgotten)")
    axes.set_title(title, loc="left", weight="bold")
    axes.grid(c="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if labels or others:
        heading = "numbers: lambda\nbars: 95% t-interval over seeds"
        legend = axes.legend(title=heading, title_fontsize=8, fontsize=9, alignment="left", handlelength=2.8)
        figure.draw_without_rendering()
        _label_points(axes, labels, [artist.get_window_extent() for artist in (*axes.texts, legend)])
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _label_points(axes: Axes, labels: Iterable[tuple[str, tuple[float, float], str]], taken: list[BboxBase]) -> None:
    """Writes each (text, place, colour) beside its place, if some side is free of lines and of the taken boxes."""
    paths = [line.get_path() for line in axes.lines] + [path for bars in axes.collections for path in bars.get_paths()]
    ends = [np.asarray(path.vertices) for path in paths]
    ink = axes.transData.transform(np.concatenate([np.linspace(xy[:-1], xy[1:], 200).reshape(-1, 2) for xy in ends]))
    for text, place, colour in labels:
        for dx, dy in _SIDES:
            side: dict[str, Any] = {
                "ha": ("center", "left", "right")[dx],
                "va": ("center", "bottom", "top")[dy],
                "c": colour,
            }
            label = axes.annotate(text, place, (4 * dx, 4 * dy), textcoords="offset points", size=7.5, **side)
            box = label.get_window_extent()
            if not box.count_contains(ink) and not box.count_overlaps(taken):
                taken.append(box)
                break
            label.remove()

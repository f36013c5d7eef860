"""The picture of a study: book perplexity over dialog perplexity, a curve a method and coupling."""

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

from .records import PLAIN, PRETRAINED, RunRecord, curves_of, display_name, group_by, mean_and_interval

_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito: colour-blind safe
_SIDES = ((1, 1), (-1, -1), (1, -1), (-1, 1), (0, 1), (0, -1), (1, 0), (-1, 0))  # of a point, tried for its label


def _point(runs: Sequence[RunRecord]) -> tuple[float, float, float, float]:
    """(x, y, half-width in x, half-width in y) of a setting in the picture."""
    x, dx = mean_and_interval([run.dialog_perplexity for run in runs])
    y, dy = mean_and_interval([run.book_perplexity for run in runs])
    return x, y, dx or 0.0, dy or 0.0


def draw_picture(records: Sequence[RunRecord], title: str) -> bytes:
    """PNG of book over dialog perplexity: for each method and coupling a curve over lambda, from plain fine-tuning."""
    figure = Figure(figsize=(8, 5.5), dpi=150)
    axes = figure.add_axes((0.085, 0.105, 0.895, 0.82))
    axes.margins(0.06)
    start = next(run for run in records if run.name == PRETRAINED)
    plain = [run for run in records if run.method == PLAIN]
    origin = [_point(plain)] if plain else []
    for x, y, dx, dy in origin:
        axes.errorbar(x, y, dy, dx, "*", ms=18, c="#222222", mec="white", elinewidth=0.8, zorder=5)
        axes.annotate("plain fine-tuning", (x, y), (11, 4), textcoords="offset points", weight="bold", c="#222222")
    curves, labels = curves_of(records), []
    methods = dict.fromkeys(["fisher", "mas", "l2", *(method for method, _ in curves)])
    colours = dict(zip(methods, itertools.cycle(_PALETTE), strict=False))
    for (method, coupling), runs in curves.items():
        settings = group_by(runs, attrgetter("ewc_lambda"))
        points = [_point(seeds) for seeds in settings.values()]
        labels += [(f"{at:g}", point[:2], colours[method]) for at, point in zip(settings, points, strict=True)]
        x, y, dx, dy = np.transpose([*origin, *points])
        name = display_name(method) + (f", {coupling}" if coupling else "")
        style: dict[str, Any] = {"ls": "--", "mfc": "white"} if coupling == "decoupled" else {"ls": "-"}
        axes.errorbar(x, y, dy, dx, c=colours[method], marker="o", ms=5, lw=1.7, elinewidth=0.8, label=name, **style)
    left, right = axes.get_xlim()
    far = axes.has_data() and start.dialog_perplexity > right + 0.25 * (right - left)
    if not far:
        axes.plot(start.dialog_perplexity, start.book_perplexity, "D", c="#666666", ms=7)
    note = f"pretrained: book {start.book_perplexity:.1f} at dialog {start.dialog_perplexity:.1f}{' →' if far else ''}"
    axes.set_xlim(axes.get_xlim())
    axes.hlines(start.book_perplexity, *axes.get_xlim(), colors="#666666", linestyles=(0, (6, 4)), lw=1.2, zorder=1)
    beside: dict[str, Any] = {
        "xycoords": axes.get_yaxis_transform(),
        "textcoords": "offset points",
        "ha": "right",
        "va": "top",
    }
    axes.annotate(note, (0.99, start.book_perplexity), (0, -5), size=9, c="#444444", **beside)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom - 0.04 * (top - bottom), top)
    axes.set_xlabel("dialog perplexity per token (the new task; lower is better)")
    axes.set_ylabel("book perplexity per token (the old text; lower is less forgotten)")
    axes.set_title(title, loc="left", weight="bold")
    axes.grid(c="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if labels:
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

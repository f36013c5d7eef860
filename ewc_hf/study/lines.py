"""How each curve of a study looks in its picture: methods differ in colour, the curves of one method in style."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

from matplotlib.patheffects import withStroke

from ..storage import PALETTE
from .curves import curves_of
from .records import PLAIN, PRETRAINED, RunRecord, group_by, mean_and_interval

_Style = dict[str, Any]  # arguments of `Axes.plot`
PLAIN_COLOUR = "#000000"
_PALETTE = (*PALETTE, "#F0E442")
"""The eighth of Okabe and Ito, black, is plain fine-tuning's."""
_PALE: _Style = {"path_effects": [withStroke(linewidth=2.8, foreground="#857c00")], "ms": 4}  # of the last, yellow
_TRAINED: tuple[_Style, ...] = (
    {"lw": 1.8, "ms": 5, "ls": "-", "marker": "o"},
    {"lw": 1.8, "ms": 5, "ls": "--", "marker": "o", "mfc": "white"},
    {"lw": 1.8, "ms": 5, "ls": "-.", "marker": "^"},
    {"lw": 1.8, "ms": 5, "ls": (0, (6, 1, 1, 1, 1, 1)), "marker": "v", "mfc": "white"},
)
_INTERPOLATED: tuple[_Style, ...] = tuple({"lw": 1.2, "ms": 5, "ls": ":", "marker": marker} for marker in "x+.1234|")
_SINGLE: tuple[_Style, ...] = tuple({"ms": 6, "ls": "", "marker": marker} for marker in "sDPXph")


@dataclasses.dataclass(frozen=True)
class Line:
    """What one entry of the legend stands for: a curve by rising strength, or a single point."""

    title: str
    settings: list[list[RunRecord]]  # the seeds of each point
    colour: str
    style: _Style
    interpolated: bool


def lines_of(records: Sequence[RunRecord]) -> list[Line]:
    """Curves, and the settings that are on none, in order of first appearance; plain fine-tuning is no line."""
    shown = curves_of(records)
    on_curves = {run.name for runs in shown.values() for run in runs}
    single = [run for run in records if run.name not in {PRETRAINED, PLAIN, *on_curves}]
    shown.update(group_by(single, attrgetter("name")))
    titles = dict.fromkeys(title for run in records for title in (*run.curves, run.name) if title in shown)
    colours = {PLAIN: PLAIN_COLOUR}
    lines: list[Line] = []
    for title in titles:
        runs = shown[title]
        method = next((run.method for run in runs if run.name != PLAIN), PLAIN)
        colour = colours.setdefault(method, _PALETTE[(len(colours) - 1) % len(_PALETTE)])
        interpolated = any(run.fraction < 1 for run in runs)
        styles = _SINGLE if title not in runs[0].curves else _INTERPOLATED if interpolated else _TRAINED
        before = sum(line.colour == colour and line.style["ls"] in {style["ls"] for style in styles} for line in lines)
        style = {**styles[before % len(styles)], **(_PALE if colour == _PALETTE[-1] else {})}
        lines.append(Line(title, [*group_by(runs, attrgetter("name")).values()], colour, style, interpolated))
    return lines


def labels_of(lines: Iterable[Line]) -> list[tuple[str, tuple[float, float], str]]:
    """(text, place, colour) of each setting once, whatever curves it lies on; trained models come first."""
    labels: dict[str, tuple[str, tuple[float, float], str]] = {}
    for line in sorted(lines, key=attrgetter("interpolated")):
        for runs in line.settings:
            labels.setdefault(runs[0].name, (runs[0].label, point_of(runs)[:2], line.colour))
    return [*labels.values()]


def point_of(runs: Sequence[RunRecord]) -> tuple[float, float, float, float]:
    """(x, y, half-width in x, half-width in y) of a setting's seeds in the picture."""
    x, dx = mean_and_interval([run.task_perplexity for run in runs])
    y, dy = mean_and_interval([run.retention_perplexity for run in runs])
    return x, y, dx or 0.0, dy or 0.0

"""Labels beside the points of a picture, where there is room for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.transforms import BboxBase

_SIDES = ((1, 1), (-1, -1), (1, -1), (-1, 1), (0, 1), (0, -1), (1, 0), (-1, 0))  # of a point, tried for its label
_DISTANCES = (4, 8)  # points
_DARKER = 0.7  # than lines, as letters are thin


def place_labels(axes: Axes, labels: Sequence[tuple[str, tuple[float, float], str]]) -> None:
    """Writes each (text, place, colour) beside its place in a drawn figure, where some side is free.

    Free is a side in the frame without lines and other texts on which the text is nearer to its own place than to any
    other of the places.
    """
    paths = [line.get_path() for line in axes.lines] + [path for bars in axes.collections for path in bars.get_paths()]
    ends = [np.asarray(path.vertices) for path in paths]
    ink = axes.transData.transform(np.concatenate([np.linspace(xy[:-1], xy[1:], 200).reshape(-1, 2) for xy in ends]))
    places = axes.transData.transform([place for _, place, _ in labels])
    taken = [text.get_window_extent() for text in axes.texts]
    for number, (text, place, colour) in enumerate(labels):
        for distance, (dx, dy) in product(_DISTANCES, _SIDES) if text else ():
            side: dict[str, Any] = {
                "ha": ("center", "left", "right")[dx],
                "va": ("center", "bottom", "top")[dy],
                "c": [_DARKER * part for part in to_rgb(colour)],
            }
            offset = (distance * dx, distance * dy)
            label = axes.annotate(text, place, offset, textcoords="offset points", size=8, **side)
            box = label.get_window_extent()
            inside = axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1)
            blocked = box.count_contains(ink) or box.count_overlaps(taken)
            if inside and not blocked and np.nanargmin(_distances(places, box)) == number:
                taken.append(box)
                break
            label.remove()


def _distances(places: np.ndarray, box: BboxBase) -> np.ndarray:
    nearest = np.clip(places, (box.x0, box.y0), (box.x1, box.y1))
    return np.linalg.norm(places - nearest, axis=1)

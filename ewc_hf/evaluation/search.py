"""The farthest model on a line whose measured cost stays within a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

_TOLERANCE = 0.05
"""Of the budget: a point that spends less than this below it may be bettered."""
_MOST_STEPS = 26
"""After so many, nearly all of them halvings, neighbouring points are equal in float32."""
_GUESSES = 3
"""So many of them, the first."""


class OnLine(Protocol):
    """A model on a line.

    Attributes:
        t: where it is, from 0 to 1.
    """

    @property
    def t(self) -> float:
        """Where it is."""


Point = TypeVar("Point", bound=OnLine)


def farthest_within(
    spent: Callable[[Point], float],
    points: Sequence[Point],
    measure: Callable[[float], Point],
    safe_end: float = 0.0,
) -> Point:
    """Return the point farthest from the safe end that was found to cost no more than the budget.

    It costs at least 95% of it, unless it is the other end, or the cost jumps. Each point is an evaluation, and near
    the safe end the cost is about quadratic: the first steps guess by that, all others halve.

    Args:
        spent: which fraction of the budget a point costs; at the safe end at most 1.
        points: that are measured already, both ends among them.
        measure: returns another point of the line.
        safe_end: 0 or 1.
    """
    farthest_first = sorted(points, key=lambda point: abs(point.t - safe_end), reverse=True)
    number = next(n for n, point in enumerate(farthest_first) if spent(point) <= 1)
    best, beyond = farthest_first[number], farthest_first[max(number - 1, 0)]
    for step in range(_MOST_STEPS if number > 0 else 0):
        if spent(best) >= 1 - _TOLERANCE:
            break
        part = 0.5
        if step < _GUESSES:
            low, high = (math.sqrt(max(spent(point), 0)) for point in (best, beyond))
            guess = (math.sqrt(1 - _TOLERANCE / 2) - low) / (high - low)
            part = guess if 0 < guess < 1 else 0.5
        point = measure(best.t + part * (beyond.t - best.t))
        if spent(point) <= 1:
            best = point
        else:
            beyond = point
    return best

"""The farthest model on a line whose measured cost stays within a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

_TOLERANCE = 0.05
"""Of the budget: a point that spends less than this below it may be bettered."""
_MOST_STEPS = 26
"""After so many halvings neighbouring points are equal in float32."""
_MOST_TIMES = 1e4
"""Of the budget: a cost beyond, or one that is no number, is as far from it as this."""


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

    It costs at least 95% of it, unless it is the other end, or the cost jumps. Each point is an evaluation. Near the
    safe end the cost is about quadratic, so that the search, Brent's, is for a zero of its square root.

    Args:
        spent: which fraction of the budget a point costs; at the safe end at most 1.
        points: that are measured already, both ends among them.
        measure: returns another point of the line.
        safe_end: 0 or 1.
    """
    from scipy.optimize import brentq

    farthest_first = sorted(points, key=lambda point: abs(point.t - safe_end), reverse=True)
    number = next(n for n, point in enumerate(farthest_first) if spent(point) <= 1)
    best = farthest_first[number]
    if number == 0 or _is_near(spent(best)):
        return best
    known = {point.t: point for point in farthest_first[number - 1 : number + 1]}

    def distance(t: float) -> float:
        if t not in known:
            known[t] = measure(t)
        share = spent(known[t])
        return 0.0 if _is_near(share) else _signed_root(share) - _signed_root(1 - _TOLERANCE / 2)

    brentq(distance, *known, xtol=2.0**-_MOST_STEPS, maxiter=_MOST_STEPS, disp=False)
    return max((p for p in known.values() if spent(p) <= 1), key=lambda point: abs(point.t - safe_end))


def _is_near(share: float) -> bool:
    return 1 - _TOLERANCE <= share <= 1


def _signed_root(share: float) -> float:
    size = min(abs(share), _MOST_TIMES) if math.isfinite(share) else _MOST_TIMES
    return -math.sqrt(size) if share < 0 else math.sqrt(size)

"""What a model on the line between old and tuned weights may cost, and the farthest point that costs no more."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import ClassVar

from ..evaluation import farthest_within
from .line_points import LinePoint


@dataclass(frozen=True)
class MaxForgetting:
    """At most so much forgetting: go from the base model, which forgets nothing, as far as it allows.

    Attributes:
        max_forgetting: nats per token of the retention text, positive.
    """

    max_forgetting: float
    safe_end: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.max_forgetting < math.inf:
            raise ValueError(
                f"expected a positive, finite max_forgetting, got {self.max_forgetting}; it is in nats per token, "
                "such as 0.05"
            )

    def spent(self, point: LinePoint, tuned: LinePoint) -> float:
        """Return which fraction of the budget a point costs."""
        return point.forgetting / self.max_forgetting

    def __str__(self) -> str:
        return f"the largest t found that forgets at most {self.max_forgetting:g} nats per token"


@dataclass(frozen=True)
class MaxTaskLoss:
    """At most so much more loss on the task: go from the tuned model back as far as it allows.

    Attributes:
        max_task_loss: rise of the task NLL over the tuned model's, a positive fraction: 0.02 for +2%.
    """

    max_task_loss: float
    safe_end: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.max_task_loss < math.inf:
            raise ValueError(
                f"expected a positive, finite max_task_loss, got {self.max_task_loss}; it is a rise of the task's NLL "
                "over the tuned model's, such as '+2%'"
            )

    def spent(self, point: LinePoint, tuned: LinePoint) -> float:
        """Return which fraction of the budget a point costs."""
        return (point.task_nll / tuned.task_nll - 1) / self.max_task_loss

    def __str__(self) -> str:
        percent = f"{100 * self.max_task_loss:g}%"
        return f"the smallest t found whose NLL on the task is at most {percent} above the tuned model's"


Budget = MaxForgetting | MaxTaskLoss


def parse_budget(max_forgetting: float | None, max_task_loss: float | str | None) -> Budget | None:
    """Return the one budget that is given, or None where none is.

    Args:
        max_forgetting: nats per token.
        max_task_loss: a fraction, 0.02, or "0.02", "2%" or "+2%".

    Raises:
        ValueError: both are given, one is not positive or not finite, or it is no such percentage.
    """
    if max_forgetting is not None and max_task_loss is not None:
        raise ValueError(
            f"expected max_forgetting or max_task_loss, got both ({max_forgetting} and {max_task_loss}); the model is "
            "chosen by one of them"
        )
    if max_forgetting is not None:
        return MaxForgetting(max_forgetting)
    return None if max_task_loss is None else MaxTaskLoss(_fraction(max_task_loss))


def _fraction(increase: float | str) -> float:
    """Return a rise as a fraction."""
    found = re.fullmatch(r"([+-]?\d*\.?\d+(?:e[+-]?\d+)?)(%?)", str(increase).strip(), re.IGNORECASE)
    if found is None:
        raise ValueError(f"expected max_task_loss as '+2%', '2%' or 0.02, got '{increase}'")
    fraction = float(found[1]) / (100 if found[2] else 1)
    if fraction >= 1 and not found[2]:
        raise ValueError(f"expected max_task_loss as '+2%', '2%' or 0.02, got '{increase}'; write '{increase}%'")
    return fraction


def farthest_point(budget: Budget, points: Sequence[LinePoint], measure: Callable[[float], LinePoint]) -> LinePoint:
    """Return the point farthest from the safe end that was found to cost no more than the budget.

    Args:
        budget: what it may cost.
        points: that are measured already, both ends among them.
        measure: returns another point of the line.
    """
    tuned = max(points, key=attrgetter("t"))
    return farthest_within(lambda point: budget.spent(point, tuned), points, measure, budget.safe_end)

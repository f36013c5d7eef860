"""What was measured between an old and a tuned model, and which one was chosen."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..version import versions
from .budget import Budget
from .line_points import LinePoint
from .records import TextNames


@dataclasses.dataclass(frozen=True)
class Interpolation:
    """The models on a line.

    Attributes:
        base: the old model, as it was named.
        tuned: the tuned model, as it was named.
        points: all models that were measured, from base to tuned.
        budget: by which one was chosen; None for the curve alone.
        chosen: that one, written in the dtypes of the tuned model; None without a budget.
        measured: how, by the names of `evaluate_perplexity`.
        names: what the two texts are called.
    """

    base: str
    tuned: str
    points: list[LinePoint]
    budget: Budget | None
    chosen: LinePoint | None
    measured: dict[str, Any]
    names: TextNames

    def to_json(self) -> dict[str, Any]:
        """Return all of it, and the versions of the libraries, as JSON has it."""
        content = dataclasses.asdict(self)
        return {**content, "chosen": None if self.chosen is None else self.chosen.t, "versions": versions()}

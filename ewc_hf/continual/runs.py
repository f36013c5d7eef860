"""The runs of a grid: which there are, what each came to, and their curves over lambda."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ..study import Sweep, sweep_of
from .rows import Row

UNPROTECTED = "unprotected"
"""The row of lambda 0, which belongs to every other."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a grid; row None has no penalty, and lambda 0."""

    row: Row | None
    ewc_lambda: float
    seed: int

    @property
    def row_name(self) -> str:
        """Of its row."""
        return UNPROTECTED if self.row is None else self.row.name

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.row_name.replace(':', '-')}-{self.ewc_lambda:.12g}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class ContinualRun:
    """What a run came to."""

    row: str
    ewc_lambda: float
    seed: int
    accuracy: list[list[float]]  # [k][j]: share of task j's test pictures told right after task k, j <= k
    seconds: float  # its share of its stack's time

    @property
    def score(self) -> float:
        """The mean accuracy over all tasks after the last one."""
        return float(np.mean(self.accuracy[-1]))


def points_of(rows: Mapping[Row, Sequence[float]], seeds: Sequence[int]) -> list[Point]:
    """Return every lambda of every row with every seed, and the runs without a penalty first.

    Raises:
        ValueError: there is no row or no seed, or one comes twice.
    """
    if not rows or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"expected rows, and seeds that come once each, got {len(rows)} rows and the seeds {list(seeds)}"
        )
    unprotected = [Point(None, 0.0, seed) for seed in seeds]
    return unprotected + [
        Point(row, ewc_lambda, seed) for row, lambdas in rows.items() for ewc_lambda in lambdas for seed in seeds
    ]


def sweeps_of_runs(runs: Sequence[ContinualRun]) -> list[Sweep]:
    """Return each row's curve over lambda, scored by the mean accuracy after the last task, and without a penalty."""
    scores: dict[str, dict[float, list[float]]] = {}
    for run in runs:
        scores.setdefault(run.row, {}).setdefault(run.ewc_lambda, []).append(run.score)
    without = scores.pop(UNPROTECTED, {})
    sweeps = []
    for row, of_row in scores.items():
        method, form = row.split(":")
        sweeps.append(sweep_of(method, form, {**without, **of_row}, higher_is_better=True))
    return sweeps

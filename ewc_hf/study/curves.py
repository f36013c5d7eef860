"""Methods compared at equal task loss: each a curve over its strengths, read where it crosses a task NLL.

Runs of one curve differ in seed and strength only; which curves a run lies on, its record says.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from operator import attrgetter

import numpy as np
from scipy import stats

from .records import PLAIN, RunRecord, group_by, mean_and_interval, with_forgetting

INCREASES = (0.01, 0.02, 0.03, 0.05)
"""Rises of the task NLL over plain fine-tuning's at which methods are compared, as fractions."""


@dataclasses.dataclass(frozen=True)
class RemovedAt:
    """What a curve removes of the forgetting where its task NLL is `1 + increase` times plain fine-tuning's."""

    curve: str
    needs_old_text: bool
    increase: float  # a fraction: 0.02 for +2%
    forgetting_removed: float | None  # a fraction, mean over seeds; None if the curve of any seed does not cross it
    interval: float | None  # half-width of its 95% t-interval; None for fewer than two seeds
    strength: float | None  # that gets there, mean over seeds: geometric, or arithmetic where one is 0
    seeds: int  # how many the curve has


def removed_at(records: Iterable[RunRecord], increase: float) -> list[RemovedAt]:
    """Forgetting removed at equal task loss, one result a curve.

    For each seed the points (task NLL, forgetting removed), ordered by strength, are joined by straight lines; read
    off is where these first cross `(1 + increase) * task_nll(plain)`. The strength is interpolated geometrically, or
    linearly from 0. Nothing is read before the smallest strength: a straight line from plain fine-tuning, however far
    away that is, does not compare with a curve that was measured, unless plain fine-tuning is a point of it. So a
    curve with one strength has no result.

    Raises:
        ValueError: As `with_forgetting`, which is applied first; if `increase` is not a positive, finite fraction.
    """
    if not 0 < increase < math.inf:
        raise ValueError(f"expected a positive, finite rise of the task NLL, got {increase}: write +2% as 0.02")
    records = with_forgetting(records)
    plain = {run.seed: run for run in records if run.name == PLAIN}
    results = []
    for curve, runs in curves_of(records).items():
        seeds = group_by(runs, attrgetter("seed"))
        crossings = [_crossing(curve, plain[seed], seeds[seed], increase) if seed in plain else None for seed in seeds]
        found = [crossing for crossing in crossings if crossing is not None]
        removed, interval, strength = None, None, None
        needs_old_text = any(run.needs_old_text for run in runs)
        if len(found) == len(seeds):
            removed, interval = mean_and_interval([fraction for fraction, _ in found])
            strengths = [at for _, at in found]
            strength = float(stats.gmean(strengths) if min(strengths) > 0 else np.mean(strengths))
        results.append(RemovedAt(curve, needs_old_text, increase, removed, interval, strength, len(seeds)))
    return results


def curves_of(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Each curve's title -> its runs, by rising strength; one where nothing protects yet is none."""
    curves: dict[str, list[RunRecord]] = {}
    for run in records:
        for title in run.curves:
            curves.setdefault(title, []).append(run)
    return {
        title: sorted(runs, key=lambda run: run.curves[title])
        for title, runs in curves.items()
        if any(run.curves[title] > 0 for run in runs)
    }


def _crossing(curve: str, plain: RunRecord, runs: Sequence[RunRecord], increase: float) -> tuple[float, float] | None:
    """(forgetting removed, strength) where one seed's curve first crosses the task NLL asked for."""
    target = (1 + increase) * plain.task_nll
    for left, right in itertools.pairwise(runs):
        if not left.task_nll <= target or left.forgetting_removed is None or right.forgetting_removed is None:
            return None
        if target < right.task_nll:
            t = (target - left.task_nll) / (right.task_nll - left.task_nll)
            removed = (1 - t) * left.forgetting_removed + t * right.forgetting_removed
            a, b = left.curves[curve], right.curves[curve]
            return removed, a ** (1 - t) * b**t if min(a, b) > 0 else (1 - t) * a + t * b
    return None

"""Methods compared at equal task loss: each a curve over its strengths, read where it crosses a task NLL.

Runs of one curve differ in seed and lambda only.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from operator import attrgetter

from scipy import stats

from ..importance import Method
from .records import PLAIN, PRETRAINED, RunRecord, group_by, mean_and_interval, with_forgetting

INCREASES = (0.01, 0.02, 0.05)
"""Rises of the task NLL over plain fine-tuning's at which methods are compared, as fractions."""


@dataclasses.dataclass(frozen=True)
class RemovedAt:
    """What a curve removes of the forgetting where its task NLL is `1 + increase` times plain fine-tuning's."""

    curve: str
    increase: float  # a fraction: 0.02 for +2%
    forgetting_removed: float | None  # a fraction, mean over seeds; None if the curve of any seed does not cross it
    interval: float | None  # half-width of its 95% t-interval; None for fewer than two seeds
    ewc_lambda: float | None  # strength that gets there, geometric mean over seeds
    seeds: int  # how many the curve has


def removed_at(records: Iterable[RunRecord], increase: float) -> list[RemovedAt]:
    """Forgetting removed at equal task loss, one result a curve.

    For each seed the points (task NLL, forgetting removed), ordered by lambda, are joined by straight lines; read off
    is where these first cross `(1 + increase) * task_nll(plain)`. Lambda is interpolated geometrically. Nothing is
    read before the smallest strength: a straight line from plain fine-tuning, however far away that is, does not
    compare with a curve that was measured. So a method with one strength has no result.

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
        crossings = [_crossing(plain[seed], seeds[seed], increase) if seed in plain else None for seed in seeds]
        found = [crossing for crossing in crossings if crossing is not None]
        removed, interval, strength = None, None, None
        if len(found) == len(seeds):
            removed, interval = mean_and_interval([fraction for fraction, _ in found])
            strength = float(stats.gmean([ewc_lambda for _, ewc_lambda in found]))
        results.append(RemovedAt(curve, increase, removed, interval, strength, len(seeds)))
    return results


def curves_of(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Each curve's title -> its runs, by rising lambda; settings without a lambda are on no curve."""
    tuned = (run for run in records if run.name not in (PRETRAINED, PLAIN))
    curves = group_by(tuned, curve_title)
    return {
        title: sorted(runs, key=attrgetter("ewc_lambda"))
        for title, runs in curves.items()
        if any(run.ewc_lambda > 0 for run in runs)
    }


def curve_title(run: RunRecord) -> str:
    """What a run's curve is called in tables and pictures: method, coupling, and whatever else it changes."""
    others = {key: value for key, value in run.overrides.items() if key != "ewc_lambda"}
    coupling = [others.pop("ewc_coupling")] if "ewc_coupling" in others else []
    return ", ".join([method_title(run.method), *coupling, *(f"{key}={value}" for key, value in others.items())])


def method_title(method: str) -> str:
    """What a method is called in tables and pictures."""
    return Method(method).title if method in list(Method) else method


def _crossing(plain: RunRecord, runs: Sequence[RunRecord], increase: float) -> tuple[float, float] | None:
    """(forgetting removed, lambda) where one seed's curve first crosses the task NLL asked for."""
    target = (1 + increase) * plain.task_nll
    for left, right in itertools.pairwise(run for run in runs if run.ewc_lambda > 0):
        if not left.task_nll <= target or left.forgetting_removed is None or right.forgetting_removed is None:
            return None
        if target < right.task_nll:
            t = (target - left.task_nll) / (right.task_nll - left.task_nll)
            removed = (1 - t) * left.forgetting_removed + t * right.forgetting_removed
            return removed, left.ewc_lambda ** (1 - t) * right.ewc_lambda**t
    return None

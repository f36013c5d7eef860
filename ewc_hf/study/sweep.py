"""Which lambda: scores over a grid of lambdas and seeds, the best one, and all that are as good.

The protocol of Kutalev & Lapina 2021 (arXiv 2109.10021), section 2: lambda is chosen by a mean over old and new tasks,
and its plateau, the lambdas whose mean lies within the interval of the best, tells how much the choice matters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from .curves import curves_of
from .records import PLAIN, RunRecord, mean_and_interval
from .settings import MAX_FORGETTING

MEAN_NLL = "mean of the NLLs (nats per token)"
"""The score of a study's runs: of the NLLs on the task and on the retention text."""


@dataclasses.dataclass(frozen=True)
class SweptPoint:
    """The runs of one lambda.

    Attributes:
        ewc_lambda: lambda of eq. 1, `lambda/2 sum Omega (w - w*)^2`.
        mean: of the scores.
        interval: half-width of their 95% t-interval; None where there is one.
        num_runs: how many.
    """

    ewc_lambda: float
    mean: float
    interval: float | None
    num_runs: int


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One method's curve over lambda.

    Attributes:
        panel: the curves of one panel are drawn together.
        title: of the curve there.
        points: by rising lambda.
        higher_is_better: whether the best score is the highest.
    """

    panel: str
    title: str
    points: Sequence[SweptPoint]
    higher_is_better: bool

    @property
    def best(self) -> SweptPoint:
        """The point of the best mean."""
        sign = 1 if self.higher_is_better else -1
        return max(self.points, key=lambda point: sign * point.mean)

    @property
    def plateau(self) -> list[SweptPoint]:
        """The points whose mean lies within the interval of the best; the best alone where it has none."""
        best = self.best
        return [point for point in self.points if abs(point.mean - best.mean) <= (best.interval or 0.0)]


def sweep_of(panel: str, title: str, scores: Mapping[float, Sequence[float]], higher_is_better: bool) -> Sweep:
    """Return a method's curve.

    Args:
        panel: the curves of one panel are drawn together.
        title: of the curve there.
        scores: by lambda, one a run.
        higher_is_better: whether the best score is the highest.

    Raises:
        ValueError: there is no lambda, or one without a score.
    """
    if not scores:
        raise ValueError(
            f"expected scores of at least one lambda for '{panel}, {title}', got none; finish a run first"
        )
    points = [SweptPoint(at, *mean_and_interval(scores[at]), len(scores[at])) for at in sorted(scores)]
    return Sweep(panel, title, points, higher_is_better)


def sweeps_of(records: Iterable[RunRecord]) -> list[Sweep]:
    """Return a study's curves over lambda, scored by the mean of its two NLLs, in nats per token: lower is better.

    Plain fine-tuning is lambda 0 of each. Curves over other strengths than lambda are left out.

    Args:
        records: of the runs.
    """
    records = [run for run in records if run.fraction == 1]
    others = {"rehearsal_weight", MAX_FORGETTING}
    curves = {
        title: [run for run in runs if "ewc_lambda" in run.overrides and not others & run.overrides.keys()]
        for title, runs in curves_of(records).items()
    }
    plain = [_mean_nll(run) for run in records if run.name == PLAIN]
    sweeps = []
    for title, runs in curves.items():
        scores: dict[float, list[float]] = {0.0: plain} if plain else {}
        for run in runs:
            scores.setdefault(run.curves[title], []).append(_mean_nll(run))
        if runs:
            panel, _, rest = title.partition(", ")
            sweeps.append(sweep_of(panel, rest, scores, higher_is_better=False))
    return sweeps


def _mean_nll(run: RunRecord) -> float:
    return (run.task_nll + run.retention_nll) / 2

"""One record a run, and what is read off them: forgetting, and forgetting removed at equal task loss.

`dialog` is the task's held-out text, `book` the retention text; NLLs are means in nats per token. Runs of one setting
differ in their seed only; runs of one curve share method and coupling.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from scipy import stats

PRETRAINED, PLAIN = "pretrained", "plain"
INCREASES = (0.01, 0.02, 0.05)  # rises of the dialog NLL over plain fine-tuning's, as fractions
_NAMES = {"fisher": "EWC (Fisher)", "mas": "EWC (MAS)", "l2": "L2 to start"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One evaluated model: a setting's run with one seed, or the pretrained model."""

    name: str  # the setting's, shared by its seeds; "pretrained" for the model before fine-tuning
    method: str  # "pretrained", "plain", or what protects the weights: "fisher", "mas", "l2", ...
    coupling: str | None  # "loss", "decoupled", or None where the method has none
    ewc_lambda: float  # strength, in the method's own unit; 0 for plain fine-tuning
    seed: int | None  # None for the pretrained model
    dialog_nll: float  # nats per token
    dialog_perplexity: float
    book_nll: float  # nats per token
    book_perplexity: float
    forgetting: float = 0.0  # book_nll - book_nll(pretrained), nats per token; filled by `with_forgetting`
    forgetting_removed: float | None = None  # 1 - forgetting / forgetting(plain, same seed), a fraction; likewise
    seconds: float  # wall-clock time
    peak_memory_bytes: int


@dataclasses.dataclass(frozen=True)
class RemovedAt:
    """What a curve removes of the forgetting where its dialog NLL is `1 + increase` times plain fine-tuning's."""

    method: str
    coupling: str | None
    increase: float  # a fraction: 0.02 for +2%
    forgetting_removed: float | None  # a fraction, mean over seeds; None if the curve of any seed never gets there
    interval: float | None  # half-width of its 95% t-interval; None for fewer than two seeds
    ewc_lambda: float | None  # strength that gets there, geometric mean over seeds
    seeds: int  # how many the curve has


def mean_and_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float | None]:
    """Mean and half-width of its 95% t-interval, `t(0.975, n-1) * std(ddof=1) / sqrt(n)`; `None` for one value.

    Raises:
        ValueError: If there is no value.
    """
    n = len(values)
    if n == 0:
        raise ValueError("expected at least one value to average, got none: pass one value a seed")
    half_width = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else None
    return float(np.mean(values)), half_width


def with_forgetting(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Copies of the records with `forgetting` and `forgetting_removed` filled; filling twice changes nothing.

    `forgetting_removed` is 0 for plain fine-tuning; `None` for the pretrained model, and where the plain run of the
    same seed is missing or forgot nothing.

    Raises:
        ValueError: If not exactly one record is named "pretrained", or two runs share method, coupling, lambda, seed.
    """
    records = list(records)
    starts = [run.book_nll for run in records if run.name == PRETRAINED]
    if len(starts) != 1:
        raise ValueError(
            f'expected one record named "pretrained", got {len(starts)}: evaluate the pretrained model once'
        )
    for key, runs in group_by(records, attrgetter("method", "coupling", "ewc_lambda", "seed")).items():
        if len(runs) > 1:
            raise ValueError(
                f"expected one run a method, coupling, lambda and seed, got {len(runs)} of {key}: "
                "name a variant's method apart, or report it elsewhere"
            )
    plain = {run.seed: run.book_nll - starts[0] for run in records if run.method == PLAIN}

    def filled(run: RunRecord) -> RunRecord:
        forgetting, reference, removed = run.book_nll - starts[0], plain.get(run.seed, 0.0), None
        if run.method == PLAIN:
            removed = 0.0
        elif run.name != PRETRAINED and reference > 0:
            removed = 1 - forgetting / reference
        return dataclasses.replace(run, forgetting=forgetting, forgetting_removed=removed)

    return [filled(run) for run in records]


def removed_at(records: Iterable[RunRecord], increase: float) -> list[RemovedAt]:
    """Forgetting removed at equal task loss, one result a method and coupling.

    For each seed the points (dialog NLL, forgetting removed), ordered by lambda and preceded by that seed's plain run
    (lambda 0, removed 0), are joined by straight lines; read off is where these first cross
    `(1 + increase) * dialog_nll(plain)`. Lambda is interpolated geometrically between two positive lambdas, linearly
    from 0.

    Raises:
        ValueError: As `with_forgetting`, which is applied first; if `increase` is not a positive, finite fraction.
    """
    if not 0 < increase < math.inf:
        raise ValueError(f"expected a positive, finite rise of the dialog NLL, got {increase}: write +2% as 0.02")
    records = with_forgetting(records)
    plain = {run.seed: dataclasses.replace(run, ewc_lambda=0.0) for run in records if run.method == PLAIN}
    results = []
    for (method, coupling), runs in curves_of(records).items():
        seeds = group_by(runs, attrgetter("seed"))
        crossings = [_crossing([plain[seed], *seeds[seed]], increase) if seed in plain else None for seed in seeds]
        found = [crossing for crossing in crossings if crossing is not None]
        removed, interval, strength = None, None, None
        if len(found) == len(seeds):
            removed, interval = mean_and_interval([fraction for fraction, _ in found])
            strength = float(stats.gmean([ewc_lambda for _, ewc_lambda in found]))
        results.append(RemovedAt(method, coupling, increase, removed, interval, strength, len(seeds)))
    return results


def display_name(method: str) -> str:
    """How a method is called in tables and pictures."""
    return _NAMES.get(method, method)


def group_by(runs: Iterable[RunRecord], key: Callable[[RunRecord], Any]) -> dict[Any, list[RunRecord]]:
    """Collect the runs of equal key, in order of appearance."""
    groups: dict[Any, list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def curves_of(records: Iterable[RunRecord]) -> dict[tuple[str, str | None], list[RunRecord]]:
    """(method, coupling) -> its runs, by rising lambda."""
    tuned = [run for run in records if run.name != PRETRAINED and run.method != PLAIN]
    curves = group_by(tuned, attrgetter("method", "coupling"))
    return {curve: sorted(runs, key=attrgetter("ewc_lambda")) for curve, runs in curves.items()}


def _crossing(points: Sequence[RunRecord], increase: float) -> tuple[float, float] | None:
    """(forgetting removed, lambda) where one seed's curve, plain run first, first crosses the dialog NLL asked for."""
    target = (1 + increase) * points[0].dialog_nll
    for left, right in itertools.pairwise(points):
        if left.forgetting_removed is None or right.forgetting_removed is None:
            return None
        if left.dialog_nll < target <= right.dialog_nll:
            t = (target - left.dialog_nll) / (right.dialog_nll - left.dialog_nll)
            removed = (1 - t) * left.forgetting_removed + t * right.forgetting_removed
            if left.ewc_lambda > 0:
                return removed, left.ewc_lambda ** (1 - t) * right.ewc_lambda**t
            return removed, t * right.ewc_lambda
    return None

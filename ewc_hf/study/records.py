"""One record a run: how well it predicts the task's and the retention text, and what it has forgotten.

NLLs are means in nats per token. Runs of one setting differ in their seed only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
from scipy import stats

from ..evaluation import interval_over_documents

_Run = TypeVar("_Run")
PRETRAINED, PLAIN = "pretrained", "plain"
_SEEN_BESIDE_OTHER_RUNS = ("curves", "forgetting", "forgetting_interval", "forgetting_removed")


@dataclasses.dataclass(frozen=True)
class TextNames:
    """What tables and pictures call the two held-out texts.

    Raises:
        ValueError: both alike.
    """

    task: str = "task"
    retention: str = "retention"

    def __post_init__(self) -> None:
        """Check that they can be told apart."""
        if self.task == self.retention:
            raise ValueError(f"expected another name of the task than of the retention text, got '{self.task}' twice")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One evaluated model: a setting's run with one seed, or the pretrained model."""

    name: str  # the setting's, shared by its seeds; "pretrained" for the model before fine-tuning
    method: str  # "pretrained", "plain", or what protects: "fisher", "l2", ...; gives the picture its colour
    curves: dict[str, float]  # title of each curve that it is a point of -> its strength there, rising with protection
    label: str  # what the picture writes beside its point, such as "30"; "" for nothing
    needs_old_text: bool = False
    fraction: float = 1.0  # of the way from the pretrained to the trained weights; below 1 where interpolated
    overrides: dict[str, Any]  # arguments of the training that the setting changes
    seed: int | None  # None for the pretrained model
    task_nll: float  # nats per token
    task_perplexity: float
    retention_nll: float  # nats per token
    retention_perplexity: float
    forgetting: float | None = None  # retention_nll - retention_nll(pretrained); `with_forgetting` fills these three
    forgetting_interval: list[float] | None = None  # 95% interval over retention documents; None where not kept
    forgetting_removed: float | None = None  # 1 - forgetting / forgetting(plain, same seed), a fraction
    seconds: float  # wall-clock time
    seconds_a_step: float | None = None  # median of a training step's; None where it was not trained
    peak_memory_bytes: int
    continuations: list[list[str]] = dataclasses.field(default_factory=list)  # [kind of text, prompt, continuation]
    task_documents: list[list[float]] = dataclasses.field(default_factory=list)  # [nats, tokens] of each
    retention_documents: list[list[float]] = dataclasses.field(default_factory=list)

    def measured(self) -> dict[str, Any]:
        """Return what the run tells by itself, by field: neither its curves nor what `with_forgetting` fills in."""
        fields = dataclasses.asdict(self)
        return {key: value for key, value in fields.items() if key not in _SEEN_BESIDE_OTHER_RUNS}


@dataclasses.dataclass(frozen=True)
class MissingRun:
    """One run of a study that is not finished yet."""

    name: str  # the setting's
    seed: int | None


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


def with_interval(mean: float, half_width: float | None, decimals: int) -> str:
    """A mean and its interval as tables show them."""
    return f"{mean:.{decimals}f}" + ("" if half_width is None else f" ± {half_width:.{decimals}f}")


def with_forgetting(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Copies of the records with what tells of forgetting filled in; filling twice changes nothing.

    `forgetting_removed` is 0 for plain fine-tuning; `None` for the pretrained model, and where the plain run of the
    same seed is missing or forgot nothing.

    Raises:
        ValueError: If not exactly one record is named "pretrained", or two runs share name and seed.
    """
    records = list(records)
    pretrained = pretrained_of(records)
    for key, runs in group_by(records, attrgetter("name", "seed")).items():
        if len(runs) > 1:
            raise ValueError(
                f"expected one run a name and seed, got {len(runs)} of {key}: name a variant apart, or report it "
                "elsewhere"
            )
    plain = {run.seed: run.retention_nll - pretrained.retention_nll for run in records if run.name == PLAIN}

    def filled(run: RunRecord) -> RunRecord:
        forgetting, reference, removed = run.retention_nll - pretrained.retention_nll, plain.get(run.seed, 0.0), None
        if run.name == PLAIN:
            removed = 0.0
        elif run.name != PRETRAINED and reference > 0:
            removed = 1 - forgetting / reference
        return dataclasses.replace(
            run,
            forgetting=forgetting,
            forgetting_interval=forgetting_interval([run], pretrained),
            forgetting_removed=removed,
        )

    return [filled(run) for run in records]


def forgetting_interval(runs: Sequence[RunRecord], pretrained: RunRecord) -> list[float] | None:
    """95% bootstrap interval over retention documents of the forgetting, averaged over the runs of one setting.

    Document by document the run and the pretrained model are compared, so that what makes a document hard for both
    does not widen it. `None` where a run did not keep its documents' scores, and for the pretrained model itself.
    """
    documents = [run.retention_documents for run in runs]
    if not all(documents) or not pretrained.retention_documents or runs[0].name == PRETRAINED:
        return None
    (before, num_tokens), after = np.transpose(pretrained.retention_documents), np.mean(documents, axis=0)[:, 0]
    interval = interval_over_documents(after - before, num_tokens)
    return None if interval is None else list(interval)


def pretrained_of(records: Iterable[RunRecord]) -> RunRecord:
    """The record of the pretrained model.

    Raises:
        ValueError: If there is none, or more than one.
    """
    found = [run for run in records if run.name == PRETRAINED]
    if len(found) != 1:
        raise ValueError(
            f'expected one record named "pretrained", got {len(found)}: evaluate the pretrained model once'
        )
    return found[0]


def group_by(runs: Iterable[_Run], key: Callable[[_Run], Any]) -> dict[Any, list[_Run]]:
    """Collect the runs of equal key, in order of appearance."""
    groups: dict[Any, list[_Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups

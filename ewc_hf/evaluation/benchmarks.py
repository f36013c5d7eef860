"""A model's scores in tasks of EleutherAI's harness, by question. This is the only file that imports lm_eval."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..engines import evaluating, require_one_process


@dataclass(frozen=True)
class BenchmarkScore:
    """What a model scored in a task, or in all tasks of a group.

    Attributes:
        name: of the task or group, as it was asked for.
        metric: the harness's name of it, like "acc".
        higher_is_better: of the metric.
        scores: each question's, in an order that is the same for every model.
    """

    name: str
    metric: str
    higher_is_better: bool
    scores: list[float]

    @property
    def mean(self) -> float:
        """Mean over all questions, those of a group's tasks together."""
        return float(np.mean(self.scores))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean, over questions."""
        return standard_error(self.scores)


def standard_error(values: Sequence[float]) -> float:
    """Return `std / sqrt(n)` with the unbiased variance; NaN for a single value."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def evaluate_benchmarks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    benchmarks: Sequence[str],
    *,
    folder: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int = 8,
) -> list[BenchmarkScore]:
    """Run tasks of EleutherAI's harness (`lm_eval`) and return what the model scored.

    Metrics that are no mean over questions, such as a corpus's perplexity, are left out.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        benchmarks: names of the harness's tasks, groups or tags, like "arc_easy" or "mmlu".
        folder: of further tasks as YAML files, before those of the harness.
        limit: questions of each task; None takes all.
        num_fewshot: solved questions before each; None takes each task's own number.
        batch_size: of the harness's forward passes.

    Raises:
        ImportError: `lm_eval` is not installed.
        ValueError: more than one process, a number out of range, a task that is not known, or one without a metric
            that is a mean over questions.
    """
    require_one_process()
    if batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError(f"expected batch_size and limit >= 1, got {batch_size} and {limit}")
    lm_eval, model_of, manager_of = _harness()
    if folder is not None and not os.path.isdir(folder):
        raise ValueError(f"expected a folder of lm_eval's YAML files, got '{folder}', which is none; check the path")
    own = None if folder is None else os.fspath(folder)
    manager = manager_of(include_path=own, include_defaults=own is None)
    if not set(benchmarks) <= set(manager.all_tasks):
        manager = manager_of(include_path=own)  # the harness's own, which take seconds to list
    if unknown := [name for name in benchmarks if name not in manager.all_tasks]:
        near = [match for name in unknown for match in get_close_matches(name, manager.all_tasks)]
        hint = f"; nearest are {near}" if near else ""
        raise ValueError(
            f"expected names of lm_eval's tasks, got {unknown}{hint}; `lm-eval ls tasks` lists them, and a folder of "
            "YAML files adds some"
        )
    how = {"task_manager": manager, "limit": limit, "num_fewshot": num_fewshot, "bootstrap_iters": 0}
    with evaluating(model):
        harness_model = model_of(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        return [
            score
            for name in benchmarks
            for score in _scores_of(name, lm_eval.simple_evaluate(harness_model, tasks=[name], **how))
        ]


def _scores_of(name: str, found: Mapping[str, Any]) -> list[BenchmarkScore]:
    """Return what the harness found in one task or group: of each metric that is the mean of its questions' scores.

    Raises:
        ValueError: no metric is.
    """
    per_metric: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for task, questions in found["samples"].items():
        for metric, kind in sorted({(metric, each["filter"]) for each in questions for metric in each["metrics"]}):
            ordered = sorted((each for each in questions if each["filter"] == kind), key=lambda each: each["doc_id"])
            scores = [each[metric] for each in ordered]
            is_number = all(isinstance(score, int | float | np.number) for score in scores)
            if is_number and math.isclose(np.mean(scores), found["results"][task][f"{metric},{kind}"], abs_tol=1e-9):
                per_metric[metric, kind].append([float(score) for score in scores])
    per_metric = {key: parts for key, parts in per_metric.items() if len(parts) == len(found["samples"])}
    if not per_metric:
        raise ValueError(f"expected a task with a metric that is a mean over questions, got '{name}', without one")
    better = {metric: higher for each in found["higher_is_better"].values() for metric, higher in each.items()}
    return [
        BenchmarkScore(
            name, metric if kind == "none" else f"{metric}, {kind}", better[metric] is not False, list(chain(*parts))
        )
        for (metric, kind), parts in per_metric.items()
    ]


def _harness() -> tuple[Any, Any, Any]:
    """Return the library, its class for models of transformers, and what knows its tasks."""
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ImportError(f"benchmarks need lm_eval, got {error}: pip install 'ewc_hf[lm_eval]'") from error
    return lm_eval, HFLM, TaskManager

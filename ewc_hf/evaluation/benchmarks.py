"""A model's scores in tasks of EleutherAI's harness, by question. This is the only file that imports lm_eval."""

from __future__ import annotations

import math
import os
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

    Metrics that are no mean over questions, such as a corpus's perplexity, are left out. Of a group all questions
    count together, or each task by itself where its tasks share no metric.

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
    if not set(benchmarks) <= set(manager.all_subtasks):  # groups may name tasks of the harness
        manager = manager_of(include_path=own)  # its own ones, which take seconds to list
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
    """Return what the harness found in a task or group: of each metric that is the mean of its questions' scores.

    Where the tasks of a group share no such metric, each stands under its own name.

    Raises:
        ValueError: no metric is.
    """
    per_task = {task: _means(questions, found["results"][task]) for task, questions in found["samples"].items()}
    if shared := [key for key in next(iter(per_task.values())) if all(key in scores for scores in per_task.values())]:
        per_task = {name: {key: [*chain(*(scores[key] for scores in per_task.values()))] for key in shared}}
    better = {metric: higher for each in found["higher_is_better"].values() for metric, higher in each.items()}
    scores = [
        BenchmarkScore(task, metric if kind == "none" else f"{metric}, {kind}", better[metric] is not False, values)
        for task, per_metric in per_task.items()
        for (metric, kind), values in per_metric.items()
    ]
    if not scores:
        raise ValueError(f"expected a task with a metric that is a mean over questions, got '{name}', without one")
    return scores


def _means(questions: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> dict[tuple[str, str], list[float]]:
    """Return the scores of a task's questions by metric and filter, where their mean is what the harness says."""
    means: dict[tuple[str, str], list[float]] = {}
    for metric, kind in sorted({(metric, each["filter"]) for each in questions for metric in each["metrics"]}):
        ordered = sorted((each for each in questions if each["filter"] == kind), key=lambda each: each["doc_id"])
        scores: list[Any] = [each.get(metric) for each in ordered]
        is_number = all(isinstance(score, int | float | np.number) for score in scores)
        if is_number and math.isclose(np.mean(scores), results[f"{metric},{kind}"], abs_tol=1e-9):
            means[metric, kind] = [float(score) for score in scores]
    return means


def _harness() -> tuple[Any, Any, Any]:
    """Return the library, its class for models of transformers, and what knows its tasks."""
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ImportError(f"benchmarks need lm_eval, got {error}: pip install 'ewc_hf[lm_eval]'") from error
    return lm_eval, HFLM, TaskManager

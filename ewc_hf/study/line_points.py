"""How well the models on a line predict the task's and the retention text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..evaluation import PerplexityResult, evaluate_perplexity, interval_over_documents
from .line import WeightLine

Interval = tuple[float, float] | None
"""95% bootstrap interval over documents, in nats per token; None for a single document."""


@dataclasses.dataclass(frozen=True)
class LineTexts:
    """What the models on a line are measured on, and how.

    Attributes:
        retention: held-out documents like the text that was learned first.
        task: held-out documents of the task.
        stride: as `evaluate_perplexity`'s, like all below.
        window: tokens that the model sees.
        max_document_tokens: documents are cut after so many.
        bos_in_each_window: whether the beginning-of-text token is repeated in each window.
        batch_size: windows a forward pass.
        seed: of the bootstrap intervals.
    """

    retention: Sequence[str]
    task: Sequence[str]
    stride: int | None = None
    window: int | None = None
    max_document_tokens: int | None = None
    bos_in_each_window: bool = False
    batch_size: int = 8
    seed: int = 0

    def options(self) -> dict[str, Any]:
        """Return how they are measured, by the names of `evaluate_perplexity`."""
        return {name: value for name, value in vars(self).items() if name not in ("retention", "task")}


@dataclasses.dataclass(frozen=True)
class LinePoint:
    """One model on a line; NLLs and forgetting in nats per token."""

    t: float  # 0 is base, 1 is tuned
    task_nll: float
    task_nll_interval: Interval
    task_perplexity: float
    retention_nll: float
    retention_nll_interval: Interval
    retention_perplexity: float
    forgetting: float  # retention_nll - retention_nll(base)
    forgetting_interval: Interval  # of the difference, document by document; None for base


class LineReader:
    """Measures models on a line, each of them once.

    Args:
        model: whose weights the line moves.
        line: from base to tuned.
        tokenizer: of the model.
        texts: what is measured.
    """

    def __init__(
        self, model: PreTrainedModel, line: WeightLine, tokenizer: PreTrainedTokenizerBase, texts: LineTexts
    ) -> None:
        self._model, self._line, self._tokenizer, self._texts = model, line, tokenizer, texts
        self._points: dict[float, LinePoint] = {}
        self._base: PerplexityResult | None = None

    def points(self) -> list[LinePoint]:
        """Return what was measured, from base to tuned."""
        return [self._points[t] for t in sorted(self._points)]

    def measure(self, t: float) -> LinePoint:
        """Measure the model at `t`, and before the first one base, from which forgetting is counted."""
        if t > 0:
            self.measure(0.0)
        if t not in self._points:
            self._line.move_to(t)
            task, retention = self._read(self._texts.task), self._read(self._texts.retention)
            base = self._base = self._base or retention
            self._points[t] = LinePoint(
                t=t,
                task_nll=task.nll,
                task_nll_interval=task.nll_interval,
                task_perplexity=task.perplexity,
                retention_nll=retention.nll,
                retention_nll_interval=retention.nll_interval,
                retention_perplexity=retention.perplexity,
                forgetting=retention.nll - base.nll,
                forgetting_interval=_interval_of_rise(base, retention, self._texts.seed) if t > 0 else None,
            )
        return self._points[t]

    def _read(self, texts: Sequence[str]) -> PerplexityResult:
        return evaluate_perplexity(self._model, self._tokenizer, texts, progress=False, **self._texts.options())


def _interval_of_rise(before: PerplexityResult, after: PerplexityResult, seed: int) -> Interval:
    """Compare document by document, so that what makes a document hard for both models does not widen the interval."""
    rises = [new.nll_sum - old.nll_sum for old, new in zip(before.documents, after.documents, strict=True)]
    num_tokens = [document.num_tokens for document in before.documents]
    return interval_over_documents(np.array(rises), np.array(num_tokens), seed)

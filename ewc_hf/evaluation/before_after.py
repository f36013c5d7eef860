"""The page of what a model scores, or of what a tuned one gained and lost beside the old one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..storage import json_bytes, markdown_table, write_files
from ..version import versions
from .benchmarks import BenchmarkScore, standard_error
from .interval import interval_over_documents, shown_interval
from .perplexity import PerplexityResult


@dataclasses.dataclass(frozen=True)
class Scores:
    """What one model scored.

    Attributes:
        model: as it was named.
        texts: its perplexity by the name of a text.
        benchmarks: what it scored in the harness's tasks.
    """

    model: str
    texts: Mapping[str, PerplexityResult]
    benchmarks: Sequence[BenchmarkScore] = ()


@dataclasses.dataclass(frozen=True)
class NllChange:
    """How much worse a text is predicted after than before.

    Attributes:
        nats: rise of the mean NLL, nats per token; on text that a model must not forget, its forgetting.
        interval: 95% bootstrap interval over documents, or blocks of them, each read by both models; None for one.
    """

    nats: float
    interval: tuple[float, float] | None


def nll_change(before: PerplexityResult, after: PerplexityResult, seed: int = 0) -> NllChange:
    """Return the rise of the NLL between two models on the same documents.

    Raises:
        ValueError: the documents were not cut into the same tokens, so that nats per token do not compare.
    """
    old, new = (np.array([each.nll_sum for each in result.documents]) for result in (before, after))
    tokens, others = (np.array([each.num_tokens for each in result.documents]) for result in (before, after))
    if not np.array_equal(tokens, others):
        raise ValueError(
            f"expected documents of the same tokens before and after, got {tokens.sum()} and {others.sum()} tokens; "
            "measure both with the old model's tokenizer, or compare bits per byte"
        )
    return NllChange(after.nll - before.nll, interval_over_documents(new - old, tokens, seed))


def shown_change(change: NllChange) -> str:
    """Return a rise with its interval, in nats per token."""
    return f"{change.nats:+.4f}{shown_interval(change.interval, '+')}"


def rise_in_words(name: str, change: NllChange) -> str:
    """Return in a sentence what a rise means for a text that had to stay.

    Args:
        name: of the text.
        change: of its NLL.
    """
    if not math.isfinite(change.nats):
        return f"On {name} it has diverged: its NLL is no longer a finite number."
    if change.interval is not None and change.interval[0] <= 0 <= change.interval[1]:
        return f"On {name} no change can be told from chance: {shown_change(change)} nats per token."
    if change.nats < 0:
        return f"On {name} it became better, by {-change.nats:.4f} nats per token."
    times = math.exp(min(change.nats, 700))
    return (
        f"Of {name} it forgot {change.nats:.4f} nats per token: the next token is on average {times:.2f} times less "
        "likely to it than before."
    )


def write_scores(after: Scores, before: Scores | None, folder: Path, settings: Mapping[str, Any] | None = None) -> str:
    """Write `evaluation.md` and `evaluation.json`, each by way of a temporary name.

    Args:
        after: what the model scored.
        before: what the old model scored on the same texts and questions; None where there is none.
        folder: made where it is missing.
        settings: how they were measured, for the record.

    Returns:
        The page, in Markdown.

    Raises:
        ValueError: as `nll_change`.
    """
    page = scores_page(after, before)
    models = [scores for scores in (before, after) if scores is not None]
    record = {"models": [_record(scores) for scores in models], "settings": settings or {}, "versions": versions()}
    write_files(folder, {"evaluation.md": page.encode(), "evaluation.json": json_bytes(record)})
    return page


def scores_page(after: Scores, before: Scores | None) -> str:
    """Return the page alone; arguments and errors as `write_scores`."""
    of = f"`{after.model}`" if before is None else f"`{after.model}`, before: `{before.model}`"
    texts = _texts(after) if before is None else _changed_texts(before, after)
    sections = [f"# {of}"]
    if after.texts:
        sections.append(markdown_table(texts))
    if after.benchmarks:
        sections.append(markdown_table(_benchmarks(after) if before is None else _changed_benchmarks(before, after)))
    if before is not None:
        sections.append(_NOTE)
    return "\n\n".join(sections) + "\n"


_NOTE = (
    "A rise on text that must stay is the forgetting; its interval is the 95% bootstrap interval over documents. A "
    "difference is the mean of those between two answers to a question, with its standard error over questions."
)


def _texts(scores: Scores) -> list[list[str]]:
    rows = [["text", "documents", "tokens", "nats per token", "perplexity", "bits per byte"]]
    for name, result in scores.texts.items():
        nats = f"{result.nll:.4f}{shown_interval(result.nll_interval)}"
        counts = [f"{len(result.documents):,}", f"{result.num_tokens:,}"]
        rows.append([name, *counts, nats, f"{result.perplexity:.2f}", f"{result.bits_per_byte:.4f}"])
    return rows


def _changed_texts(before: Scores, after: Scores) -> list[list[str]]:
    rows = [["text", "perplexity before", "after", "rise (nats per token)"]]
    for name, new in after.texts.items():
        old = before.texts[name]
        change = nll_change(old, new)
        rows.append([name, f"{old.perplexity:.2f}", f"{new.perplexity:.2f}", shown_change(change)])
    return rows


def _benchmarks(scores: Scores) -> list[list[str]]:
    rows = [["benchmark", "metric", "questions", "score"]]
    for each in scores.benchmarks:
        cells = [each.name, _metric(each), f"{len(each.scores):,}", f"{each.mean:.4f} ± {each.standard_error:.4f}"]
        rows.append(cells)
    return rows


def _changed_benchmarks(before: Scores, after: Scores) -> list[list[str]]:
    rows = [["benchmark", "metric", "questions", "before", "after", "difference"]]
    known = {(each.name, each.metric): each for each in before.benchmarks}
    for new in after.benchmarks:
        if (old := known.get((new.name, new.metric))) is None:
            continue
        changes = np.subtract(new.scores, old.scores).tolist()
        difference = f"{np.mean(changes):+.4f} ± {standard_error(changes):.4f}"
        means = [f"{old.mean:.4f}", f"{new.mean:.4f}"]
        rows.append([new.name, _metric(new), f"{len(new.scores):,}", *means, difference])
    return rows


def _metric(score: BenchmarkScore) -> str:
    return score.metric if score.higher_is_better else f"{score.metric} (lower is better)"


def _record(scores: Scores) -> dict[str, Any]:
    benchmarks = [
        {**dataclasses.asdict(each), "mean": each.mean, "standard_error": each.standard_error}
        for each in scores.benchmarks
    ]
    texts = {name: dataclasses.asdict(result) for name, result in scores.texts.items()}
    return {"model": scores.model, "texts": texts, "benchmarks": benchmarks}

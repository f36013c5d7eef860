"""What the card of a tuned model tells of the old one: how it was held, and what is left of what it knew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .penalty import PenaltyRecord, Remembered
from .rehearsal import RehearsalRecord
from .storage import calm, colour, markdown_table, png, write_files

if TYPE_CHECKING:
    from transformers import Trainer as _SomeTrainer
else:
    _SomeTrainer = object

PICTURE = "forgetting.png"
_TITLE = "## What it knew before"


class CardMixin(_SomeTrainer):
    """Adds a section to the model card that a `Trainer` class after it writes, with a picture beside it.

    It overrides `create_model_card`, which `push_to_hub` calls.
    """

    _remembered: Remembered | None
    _retention_texts: dict[str, Sequence[str]]

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the card as usual, and what held the model: method, data, strength, perplexities before and after.

        Before is the evaluation at step 0, as `eval_on_start=True` makes one, after the last one.
        """
        super().create_model_card(*args, **kwargs)
        callbacks = self.callback_handler.callbacks
        records = {type(held): held for held in callbacks if isinstance(held, PenaltyRecord | RehearsalRecord)}
        if not self.is_world_process_zero() or not (records or self._retention_texts):
            return
        history = self.state.log_history
        evaluations = [logs for logs in history if "eval_loss" in logs]
        pictures = {PICTURE: _picture(evaluations, list(self._retention_texts))} if len(evaluations) > 1 else {}
        budgets = [logs for logs in history if "forgetting_budget" in logs]
        has_moved = bool(budgets and evaluations) and history.index(budgets[-1]) > history.index(evaluations[-1])
        measured = _measured([*evaluations, {}] if has_moved else evaluations, list(self._retention_texts))
        section = _section(self._remembered, records, budgets[-1:], measured, bool(pictures))
        folder = Path(self.args.output_dir)
        card = (folder / "README.md").read_text(encoding="utf-8").partition(_TITLE)[0].rstrip()
        write_files(folder, {"README.md": f"{card}\n\n{section}".encode(), **pictures})


def _section(
    remembered: Remembered | None,
    records: Mapping[type, Any],
    budgets: Sequence[Mapping[str, float]],
    measured: Sequence[Sequence[str]],
    is_drawn: bool,
) -> str:
    paragraphs, rows = [_TITLE], [["held by", ""]]
    if PenaltyRecord in records and remembered is not None and (penalty := records[PenaltyRecord].penalty):
        rows += _of_penalty(penalty, remembered.metadata)
    if RehearsalRecord in records and (rehearsal := records[RehearsalRecord].rehearsal):
        rows.append(["self-rehearsal", _of_rehearsal(rehearsal)])
    rows += map(_of_budget, budgets)
    if len(rows) > 1:
        paragraphs += ["It was tuned with `ewc_hf`, so as to keep what it knew.", markdown_table(rows)]
    if measured:
        paragraphs.append(markdown_table(measured))
    if is_drawn:
        paragraphs.append(f"![Held-out loss over the steps of the training]({PICTURE})")
    return "\n\n".join(paragraphs) + "\n"


def _of_penalty(penalty: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[list[str]]:
    anchor, unit = metadata["anchor"], metadata["unit"]
    source = anchor.get("source")
    known = source is not None and not Path(source).exists()
    at = f"`{source}`" if known else "the weights before tuning"
    examples, tokens = metadata["num_examples"], metadata["num_tokens"]
    read = f"{examples:,} examples, {tokens:,} tokens" if tokens else ""
    return [
        ["Elastic Weight Consolidation", f"lambda {penalty['ewc_lambda']:g}, coupling `{penalty['ewc_coupling']}`"],
        ["importance", ", ".join(part for part in (metadata["method"], read, f"in {unit}") if part)],
        ["anchor", f"{at}{' at ' + anchor['revision'] if known and anchor.get('revision') else ''}"],
    ]


def _of_rehearsal(rehearsal: Mapping[str, Any]) -> str:
    by = "that the old model wrote" if rehearsal["source"] == "model" else "of old text"
    return (
        f"weight {rehearsal['rehearsal_weight']:g}, {rehearsal['rehearsal_rows']} rows a micro-batch, of "
        f"{rehearsal['num_rows']:,} rows of {rehearsal['num_tokens']} tokens {by}"
    )


def _of_budget(kept: Mapping[str, float]) -> list[str]:
    spent = f"{kept['forgetting']:.4f} of {kept['forgetting_budget']:g} nats per token of forgetting"
    return ["budget", f"{spent}, {kept['forgetting_t']:.0%} of the way from the old weights to the tuned ones"]


def _measured(evaluations: Sequence[Mapping[str, float]], texts: Sequence[str]) -> list[list[str]]:
    """Return what was measured before and after the training; before is unknown where step 0 was not evaluated."""
    if not evaluations:
        return []
    first, last = evaluations[0], evaluations[-1]
    rows = [["held-out", "before", "after"]]
    for name, key in _keys(last, texts):
        values = [logs.get(key) for logs in (first if first.get("step") == 0 else {}, last)]
        is_task = key == "eval_loss"  # which may be any
        cells = ["-" if loss is None else f"{loss if is_task else np.exp(loss):.4g}" for loss in values]
        rows.append([f"{'loss' if is_task else 'perplexity'} of {name}", *cells])
    return rows


def _keys(evaluation: Mapping[str, float], texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return what is measured, and by which key its NLL is logged, or of a task without one its loss."""
    of_task = "eval_nll" if "eval_nll" in evaluation else "eval_loss"
    return [("the task", of_task), *((text, f"eval_{text}_loss") for text in texts)]


def _picture(evaluations: Sequence[Mapping[str, float]], texts: Sequence[str]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    calm(axes)
    for number, (name, key) in enumerate(_keys(evaluations[-1], texts)):
        known = [(logs["step"], logs[key]) for logs in evaluations if key in logs]
        if known:
            axes.plot(*zip(*known, strict=True), "o-", c=colour(number), label=name, ms=4)
    axes.set(xlabel="step", ylabel="held-out loss (nats per token, of text)")
    axes.legend(frameon=False)
    return png(figure)

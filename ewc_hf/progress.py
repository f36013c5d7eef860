"""What holds a model, where people look while it is trained: the progress bar, and the table in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from transformers import Trainer

_TITLES = {
    "ewc_penalty": "Penalty",
    "ewc_predicted_forgetting": "Predicted Forgetting",
    "rehearsal_kl": "Rehearsal KL",
}


class HeldProgress(TrainerCallback):
    """Adds what holds a model to what transformers' own callbacks show of a training.

    Args:
        trainer: whose callbacks these are.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float],
        **kwargs: Any,
    ) -> None:
        """Show it behind the bar; in a notebook, where nothing is evaluated, in the line of this log."""
        if held := {title: logs[key] for key, title in _TITLES.items() if key in logs}:
            for callback in self._trainer.callback_handler.callbacks:
                if isinstance(callback, ProgressCallback) and callback.training_bar is not None:
                    callback.training_bar.set_postfix({title: f"{value:.3g}" for title, value in held.items()})
            if args.eval_strategy == "no":
                self._write_line({"Step": state.global_step, **held})

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show what was logged last in the notebook's line of this evaluation."""
        last: dict[str, float] = next((logs for logs in reversed(state.log_history) if "loss" in logs), {})
        if held := {title: last[key] for key, title in _TITLES.items() if key in last}:
            epoch = {"Epoch": int(state.epoch or 0)}
            self._write_line({**(epoch if args.eval_strategy == "epoch" else {"Step": state.global_step}), **held})

    def _write_line(self, values: dict[str, Any]) -> None:
        """Complete the line of the notebook's table that begins as this one does."""
        notebook = sys.modules.get("transformers.utils.notebook")
        if notebook is None:
            return
        for callback in self._trainer.callback_handler.callbacks:
            if isinstance(callback, notebook.NotebookProgressCallback) and callback.training_tracker is not None:
                callback.training_tracker.write_line(dict(values))

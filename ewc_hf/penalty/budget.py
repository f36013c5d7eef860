"""A budget of forgetting that a `Trainer` keeps: after training it goes back towards where it began."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import TrainOutput

from ..engines import agreed
from ..evaluation import RetentionMixin, farthest_within
from .training_line import TrainingLine

START = "start"
"""The folder of `output_dir` that holds the weights which the run began with."""


@dataclass(frozen=True)
class _Measured:
    """A model on the line, and its forgetting in nats per token: of the retention texts the largest rise."""

    t: float
    forgetting: float


class BudgetMixin(RetentionMixin):
    """Keeps the `max_forgetting` of its arguments in a `Trainer` class that comes after it.

        w(t) = w_start + t (w_end - w_start),   the largest t found with   max over texts NLL(t) - NLL(0) <= budget

    It overrides `train`, which ends with the model there (Wortsman et al. 2022, arXiv 2109.01903). Nothing is measured
    while it trains; afterwards the start, the end and mostly two or three models between them are, on all of the
    retention texts. The weights of the start are stored when the training begins, so that a resumed one finds them.
    Checkpoints hold the weights as they are trained.
    """

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train as usual, and with `max_forgetting` go back to the budget.

        Raises:
            ValueError: there are no retention texts to measure forgetting on, or as `TrainingLine`.
        """
        budget: float | None = getattr(self.args, "max_forgetting", None)
        if budget is None:
            return super().train(*args, **kwargs)
        if not self._retention_texts:
            raise ValueError(
                "expected retention_texts, on which the forgetting is measured that max_forgetting limits, got none; "
                "pass held-out old text, or what the old model wrote: `generate_rehearsal(...).texts(tokenizer)`"
            )
        begins = _LineBegins(self, Path(self.args.output_dir) / START)
        self.add_callback(begins)
        try:
            output = super().train(*args, **kwargs)
        finally:
            self.remove_callback(begins)
        assert begins.line is not None, "the training has begun"
        kept = self._keep_within(budget, begins.line)
        self.log(kept)
        return TrainOutput(output.global_step, output.training_loss, {**output.metrics, **kept})

    def _keep_within(self, budget: float, line: TrainingLine) -> dict[str, float]:
        """Move the model to the farthest point that was found to keep the budget, and return what to log of it."""
        line.end()
        at_start: dict[str, float] = {}

        def measure(t: float) -> _Measured:
            line.move_to(t)
            nll = {name: result.nll for name, result in self.measure_retention().items()}
            at_start.update({} if at_start else nll)
            return _Measured(t, max(nll[name] - at_start[name] for name in nll))

        try:
            chosen = farthest_within(lambda point: point.forgetting / budget, [measure(0.0), measure(1.0)], measure)
        except BaseException:
            line.move_to(1.0)
            raise
        line.move_to(chosen.t)
        return {"forgetting": chosen.forgetting, "forgetting_budget": budget, "forgetting_t": chosen.t}


class _LineBegins(TrainerCallback):
    """Stores the weights that a training begins with, or finds those that a resumed one began with.

    Args:
        trainer: which trains.
        folder: of these weights.
    """

    def __init__(self, trainer: BudgetMixin, folder: Path) -> None:
        self._trainer, self._folder = trainer, folder
        self.line: TrainingLine | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Engines have taken the model by now, and the weights of a resumed run are loaded."""
        self.line = agreed(lambda: TrainingLine(self._trainer.model, self._folder))
        if state.global_step == 0:
            self.line.write_start()
        self.line.open_start()

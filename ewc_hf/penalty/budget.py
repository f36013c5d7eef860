"""A budget of forgetting that a `Trainer` keeps: after training it goes back towards where it began."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import TrainOutput

from ..engines import agreed, require_engine
from ..evaluation import RetentionMixin, farthest_within
from .training_line import TrainingLine

START = "_start"
"""The folder of `output_dir` that holds the weights which the run began with; not uploaded to the Hub, as all `_*`."""


@dataclass(frozen=True)
class _Measured:
    """A model on the line, and its forgetting in nats per token: of the retention texts the largest rise."""

    t: float
    forgetting: float


class BudgetMixin(RetentionMixin):
    """Keeps the `max_forgetting` of its arguments in a `Trainer` class that comes after it.

        w(t) = w_start + t (w_end - w_start),   the largest t found with   max over texts NLL(t) - NLL(0) <= budget

    It overrides `train`, which ends with the model there (Wortsman et al. 2022, arXiv 2109.01903). The retention texts
    are measured when the training begins, and afterwards at its end and mostly at two to four models on the way back.
    The weights of the start are stored, so that a resumed run finds them. Checkpoints hold the weights as they are
    trained.
    """

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train as usual, and with `max_forgetting` go back to the budget.

        Raises:
            ValueError: there are no retention texts to measure forgetting on, the engine is the first FSDP, or as
                `TrainingLine`.
        """
        budget: float | None = getattr(self.args, "max_forgetting", None)
        if budget is None:
            return super().train(*args, **kwargs)
        if not self._retention_texts:
            raise ValueError(
                "expected retention_texts, on which the forgetting is measured that max_forgetting limits, got none; "
                "pass held-out old text, or what the old model wrote: `generate_rehearsal(...).texts(tokenizer)`"
            )
        require_engine(self, adds_gradient=False)
        record, begins = BudgetRecord(), _LineBegins(self, Path(self.args.output_dir) / START)
        self.add_callback(record)
        self.add_callback(begins)
        try:
            output = super().train(*args, **kwargs)
        finally:
            self.remove_callback(begins)
            self.remove_callback(BudgetRecord)
        assert begins.line is not None, "the training has begun"
        kept = self._keep_within(budget, begins.line, begins.nll_at_start)
        self.objective = None  # of a search: evaluations before told of another model
        self.log(kept)
        return TrainOutput(output.global_step, output.training_loss, {**output.metrics, **kept})

    def _keep_within(
        self, budget: float, line: TrainingLine, nll_at_start: dict[str, float] | None
    ) -> dict[str, float]:
        """Move the model to the farthest point that was found to keep the budget, and return what to log of it."""
        agreed(line.end)
        if nll_at_start is None:  # of a resumed run
            agreed(partial(line.move_to, 0.0))
            nll_at_start = self.retention_nll()

        def measure(t: float) -> _Measured:
            agreed(partial(line.move_to, t))
            rises = [nll - nll_at_start[name] for name, nll in self.retention_nll().items()]
            return _Measured(t, max(rises, key=lambda rise: (math.isnan(rise), rise)))

        try:
            points = [_Measured(0.0, 0.0), measure(1.0)]
            chosen = farthest_within(lambda point: point.forgetting / budget, points, measure)
        except BaseException:
            line.move_to(1.0)
            raise
        agreed(partial(line.move_to, chosen.t))
        return {"forgetting": chosen.forgetting, "forgetting_budget": budget, "forgetting_t": chosen.t}

    def retention_nll(self) -> dict[str, float]:
        """Return the NLL of each retention text, in nats per token; all processes call this."""
        return {name: result.nll for name, result in self.measure_retention().items()}


class BudgetRecord(TrainerCallback, ExportableState):
    """What `Trainer` saves, under this class's name, in the state of each checkpoint of a run with a budget.

    Attributes:
        start: fingerprint of the weights that the run began with.
    """

    def __init__(self) -> None:
        self.start: str | None = None

    def state(self) -> dict[str, Any]:
        """Return what `Trainer` saves and restores."""
        return {"args": {}, "attributes": {"start": self.start}}


class _LineBegins(TrainerCallback):
    """Stores the weights that a training begins with, or finds those that a resumed one began with.

    Args:
        trainer: which trains.
        folder: of these weights.

    Attributes:
        line: from them on.
        nll_at_start: of the retention texts; None where the run was resumed.
    """

    def __init__(self, trainer: BudgetMixin, folder: Path) -> None:
        self._trainer, self._folder = trainer, folder
        self.line: TrainingLine | None = None
        self.nll_at_start: dict[str, float] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Engines have taken the model by now, and the weights of a resumed run are loaded.

        With `auto_find_batch_size` a training may begin anew after some steps: its start is the first one.
        """
        is_first, is_resumed = self.line is None, state.global_step > 0
        self.line = line = agreed(lambda: TrainingLine(self._trainer.model, self._folder))
        if is_first and not is_resumed:
            line.write_start()
            self.nll_at_start = self._trainer.retention_nll()
        recorded = state.stateful_callbacks.get(BudgetRecord.__name__, {"attributes": {"start": "none"}})
        start = line.open_start(recorded["attributes"]["start"] if is_resumed else None)
        for callback in self._trainer.callback_handler.callbacks:
            if isinstance(callback, BudgetRecord):
                callback.start = start

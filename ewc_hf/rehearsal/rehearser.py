"""`Rehearser`: keeps the model of a trainer at the old answers to a few rows in each batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers.utils import logging

from ..engines import add_up, num_processes, process_index
from .columns import digest, lengths_of, to_tensors
from .distil import kl_divergence
from .order import rows_at
from .riding import RidingRows
from .rows import Rehearsal
from .suits import require_suitable

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.get_logger(__name__)
KL = "rehearsal_kl"
"""As what the divergence is logged: nats a position, a mean over the steps since it was logged before."""
_ANOTHER_MODEL = 1.0
"""Nats a position at the first step that no dropout explains."""


class RehearsalOptions(Protocol):
    """What `EWCFields` says of rehearsal.

    Attributes:
        rehearsal_weight: nats of the task that a nat of divergence weighs.
        rehearsal_rows: that ride in each micro-batch on each device.
    """

    rehearsal_weight: float
    rehearsal_rows: int


class Rehearser:
    """Adds to what a trainer minimizes how far its model is from the old answers.

        L(w) = L_task(w) + weight * KL,    KL = mean over the rehearsal positions of a step of KL(old || new)

    The rows share the forward and the backward pass of the task's. Their labels are -100: the task's loss, what is
    logged of it and what it is divided by know nothing of them. A model's auxiliary losses, as a router's, see all.

    Args:
        trainer: whose accelerator is set up.
        rehearsal: the rows, or the folder or Hub id where they are stored.
        options: read when a run begins.

    Raises:
        ValueError: the rows cannot be read, or do not suit the model, its tokenizer or the trainer's engine
            (`require_suitable`).
    """

    def __init__(
        self, trainer: Trainer, rehearsal: Rehearsal | str | os.PathLike[str], options: RehearsalOptions
    ) -> None:
        if not isinstance(rehearsal, Rehearsal):
            rehearsal = Rehearsal.from_pretrained(rehearsal, token=trainer.args.hub_token)
        require_suitable(trainer, rehearsal)
        self._trainer, self._options = trainer, options
        self._metadata, self._table = rehearsal.metadata, rehearsal.rows.with_format("arrow")
        self._lengths, self._digest = lengths_of(self._table[:]), digest(self._table[:])
        self.begin()

    def begin(self) -> None:
        """Begin a run, or go on with one: the state of a resumed run is loaded by then."""
        self._weight, self._rows = self._options.rehearsal_weight, self._options.rehearsal_rows
        self._step, self._micro_batch = -1, 0
        self._kl: Tensor | float = 0.0
        self._logged_step = self._trainer.state.global_step

    @property
    def record(self) -> dict[str, Any]:
        """What a checkpoint tells of it."""
        rows = {key: value for key, value in self._metadata.items() if key not in ("versions", "model_name")}
        weight, number = self._options.rehearsal_weight, self._options.rehearsal_rows
        return {**rows, "digest": self._digest, "rehearsal_weight": weight, "rehearsal_rows": number}

    @contextmanager
    def beside(self, model: nn.Module) -> Iterator[None]:
        """Let rows ride in the batch of one training step, and add their divergence to what goes backward.

        What the trainer hands to `Accelerator.backward` is scaled already, so the divergence is added there.

        Raises:
            ValueError: the rows cannot ride in this batch, or the step has no forward pass of the model with gradients
                or does not hand its loss to `Accelerator.backward`.
        """
        rows, num_positions = self._next_rows()
        device = self._trainer.args.device
        ids_RT, lengths_R, answers = to_tensors(self._table[rows])
        ids_RT, lengths_R, answers = ids_RT.to(device), lengths_R.to(device), answers.to(device)
        accelerator = self._trainer.accelerator
        backward, held = accelerator.backward, False

        def backward_with_rows(loss: Tensor, **kwargs: Any) -> None:
            nonlocal held
            real_RT = torch.arange(ids_RT.shape[1], device=device) < lengths_R[:, None]
            kl = (kl_divergence(riding.take_logits(), answers) * real_RT).sum() / num_positions
            self._remember(kl.detach())
            backward(loss + (self._weight * num_processes()) * kl, **kwargs)
            held = True

        with RidingRows(model, ids_RT, lengths_R) as riding:
            accelerator.backward = backward_with_rows
            try:
                yield
            finally:
                accelerator.backward = backward
        if not held:
            raise ValueError(
                "expected each training step to hand its loss to `Accelerator.backward`, where the rehearsal's is "
                f"added, got a step of {type(self._trainer).__name__} without; train without `rehearsal`"
            )

    def values(self) -> dict[str, float]:
        """Return the divergence to be logged, in all processes, which call this together."""
        steps = self._trainer.state.global_step - self._logged_step
        if steps == 0:
            return {}
        total = np.array([float(self._kl)])
        add_up(total)
        self._kl, self._logged_step = 0.0, self._trainer.state.global_step
        return {KL: float(total[0]) / steps}

    def _next_rows(self) -> tuple[list[int], int]:
        """Return which rows ride in this process's next micro-batch, and the positions of all of this step."""
        step = self._trainer.state.global_step
        self._micro_batch = self._micro_batch + 1 if step == self._step else 0
        self._step = step
        together = num_processes() * self._rows
        first = step * self._trainer.args.gradient_accumulation_steps * together
        here = first + (self._micro_batch * num_processes() + process_index()) * self._rows
        seed, num_rows = self._trainer.args.seed, len(self._lengths)
        of_step = range(first, first + self._trainer.current_gradient_accumulation_steps * together)
        num_positions = sum(self._lengths[row] for row in rows_at(of_step, num_rows, seed))
        return rows_at(range(here, here + self._rows), num_rows, seed), num_positions

    def _remember(self, kl: Tensor) -> None:
        """Count a micro-batch's share of the divergence towards what is logged."""
        shares = num_processes() * self._trainer.current_gradient_accumulation_steps
        if self._step == 0 and self._micro_batch == 0 and (first := float(kl) * shares) > _ANOTHER_MODEL:
            logger.warning(
                f"The model is {first:.2f} nats a position away from the answers before its first step: another model "
                "gave them, or dropout is high. It will be drawn towards them"
            )
        self._kl = self._kl + kl

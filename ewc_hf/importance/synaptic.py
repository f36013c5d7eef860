r"""Synaptic Intelligence: what each weight did for the loss on its way through training.

    omega_i = \sum_steps -g_i (w_i after the step - w_i before it)
    Omega_i = max(0, omega_i / (Delta_i^2 + damping)),       Delta_i = w_i at the end - w_i at the start

`g` is the gradient that the optimizer stepped with, so `omega_i` is the weight's share of the fall of the loss. It
costs no pass over data, and its lambda is its own. Source: Zenke et al. 2017, "Continual Learning Through Synaptic
Intelligence", eq. 3 and 5; clamped at zero as in the code of Kutalev & Lapina 2021 (arXiv 2109.10021).
"""

from __future__ import annotations

import math
import weakref
from pathlib import Path
from typing import Any

from accelerate.utils.deepspeed import DeepSpeedOptimizerWrapper
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..consolidation import Consolidation
from ..engines import LocalParameters
from .methods import Method
from .weight_path import STATE_NAME, WeightPath

logger = logging.get_logger(__name__)


class SynapticIntelligence(TrainerCallback):
    """Accrues Synaptic Intelligence while any `Trainer` trains.

    >>> synaptic = SynapticIntelligence()
    >>> trained = Trainer(model, args, train_dataset=blocks, callbacks=[synaptic]).train()
    >>> synaptic.consolidation().save_pretrained("learned")

    Each `train()` begins anew; for several tasks, merge: `old.merge(synaptic.consolidation())`. Under
    DistributedDataParallel every process holds the same result, under FSDP2 its part of it.

    Checkpoints hold the sums, so that a resumed run goes on with them, on whatever number of processes.

    The gradient is the one that the optimizer gets: a penalty of coupling `loss` is in it, and it is clipped.
    `max_grad_norm=0` gives the paper's. A step's move is the whole one, with weight decay and the pull of coupling
    `decoupled`. Where `load_best_model_at_end` goes back to the best weights, these are the end.

    While training it holds two numbers a weight, the start in the weight's dtype and what has accrued in float32
    (float64 for float64 models), and afterwards one. A step takes no memory of the model's size, but for a copy of the
    gradients under torch's SGD with Nesterov's momentum, which changes them.

    Args:
        damping: what bounds Omega where a weight came back to where it began, in squared weight; the paper's xi.

    Attributes:
        checkpoint: the one that the next `train()` resumes from; by default that of its step in the output folder.
        state_name: the file that a checkpoint holds where the sums of its run are saved.

    Raises:
        ValueError: damping not positive or not finite.
    """

    state_name = STATE_NAME

    def __init__(self, damping: float = 0.1) -> None:
        if not (math.isfinite(damping) and damping > 0):
            raise ValueError(f"expected damping to be a finite number > 0, got {damping}; the paper's is 0.1")
        self.checkpoint: Path | None = None
        self._damping = damping
        self._path: WeightPath | None = None
        self._saved_step = 0
        self._result: dict[str, Any] | None = None
        self._unread: list[str] = []
        weakref.finalize(self, _tell, self._unread)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        optimizer: Any,
        **kwargs: Any,
    ) -> None:
        """Note where the weights start, or read where they started and what has accrued since.

        Raises:
            ValueError: the engine is DeepSpeed or the first FSDP, the optimizer steps no weight of the model, or the
                run is resumed from a checkpoint without the sums.
        """
        self._forget_path()  # of a run that an exception ended
        self._result, self._saved_step = None, 0
        if isinstance(optimizer, DeepSpeedOptimizerWrapper) or any(
            isinstance(module, FullyShardedDataParallel) for module in model.modules()
        ):
            raise ValueError(
                "expected one process, DistributedDataParallel or FSDP2, got DeepSpeed or the first FSDP, whose steps "
                "cannot be followed weight by weight; use a launch config without them"
            )
        self._path = WeightPath(LocalParameters(model, optimizer.optimizer))
        if state.global_step > 0:
            self._path.read(self.checkpoint or _checkpoint(args, state))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save the sums beside the rest of the checkpoint, where `save` has not done so already."""
        if not args.save_only_model and self._saved_step != state.global_step:
            self.save(_checkpoint(args, state), state.global_step)

    def save(self, checkpoint: Path, step: int) -> None:
        """Write the start and what has accrued into a checkpoint; every process of the run has to call this.

        Args:
            checkpoint: the folder, made where it is missing.
            step: of the run.
        """
        if self._path is not None:
            self._path.write(checkpoint)
            self._saved_step = step

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Count the step: every hook of the optimizer has run by then, the decoupled pull among them."""
        if self._path is not None:
            self._path.after_step()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Turn what has accrued into importance, and let go of the start and of the optimizer."""
        if self._path is not None and self._path.num_steps > 0:
            examples_per_step = state.train_batch_size * args.gradient_accumulation_steps * args.world_size
            self._result = {
                "importance": self._path.importance(self._damping),
                "anchor": self._path.weights(),
                "num_examples": self._path.num_steps * examples_per_step,
                "num_tokens": state.num_input_tokens_seen,
                "num_steps": self._path.num_steps,
            }
            self._unread[:] = [f"the {self._path.num_steps} steps of the last training"]
        self._forget_path()

    def consolidation(self) -> Consolidation:
        """Return the importance of the last training, with the model's weights as they are now as anchor.

        The metadata's `num_examples` counts full batches, and `num_tokens` is 0 unless the training arguments have
        `include_num_input_tokens_seen`.

        Raises:
            ValueError: no training has finished with at least one step, or a weight or its importance is not finite.
        """
        if self._result is None:
            raise ValueError(
                "expected a training that finished, with at least one step of the optimizer, got none; call `train()` "
                "of the trainer that has this callback first"
            )
        self._unread.clear()
        return Consolidation.create(
            **self._result,
            anchor_is_borrowed=True,
            method=Method.SYNAPTIC.value,
            unit=f"{Method.SYNAPTIC.unit}, damping {self._damping:g}",
            damping=self._damping,
        )

    def _forget_path(self) -> None:
        if self._path is not None:
            self._path.hook.remove()
        self._path = None


def _tell(unread: list[str]) -> None:
    """Tell, at the end of a program at the latest, what was accrued for nothing."""
    for what in unread:
        logger.warning(
            f"The Synaptic Intelligence of {what} was never read, and is lost: save it after the training, by "
            "`trainer.synaptic_consolidation().save_pretrained(folder)`"
        )


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"

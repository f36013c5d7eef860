"""`EWCTrainer`: `transformers.Trainer` that holds weights near what they knew."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import Trainer, TrainerCallback
from transformers.utils import logging

from .card import CardMixin
from .config import CompleteSignature, EWCFields, StateDtype
from .consolidation import NATS_PER_TOKEN, Consolidation, StoredConsolidation
from .data import ContextMixin
from .engines import agreed, require_engine, stepped_parameters
from .importance import SynapticIntelligence
from .penalty import (
    BudgetMixin,
    CoupledPenalty,
    Coupling,
    HeldConsolidation,
    PenaltyRecord,
    Remembered,
    coupling_of,
    penalty_record,
    protected_now,
    recorded_penalty,
    require_all_coupled,
    require_same_penalty,
    resumed_penalty,
    terms_of,
    warn_if_far,
)
from .progress import HeldProgress
from .rehearsal import Rehearsal, RehearsalRecord, Rehearser, require_same_rehearsal
from .resuming import ResumingMixin, states_in

logger = logging.get_logger(__name__)


class EWCMixin(ContextMixin, BudgetMixin, ResumingMixin, CardMixin):
    """Couples penalty and rehearsal to a `Trainer` class that comes after it.

    >>> class EWCSeq2SeqTrainer(EWCMixin, Seq2SeqTrainer): ...

    Without a consolidation or with `ewc_lambda=0`, and without rehearsal rows or with `rehearsal_weight=0`, it is that
    class bit for bit.

    It overrides:
        `training_step`, in whose batch rehearsal rows ride, and since gradients are reduced and not yet clipped where
            it returns: coupling `loss`;
        `log`, to add what holds the model where the training loss is logged;
        `_maybe_log_save_evaluate`, to compute that in all processes, which `log` need not be called in;
        what `ContextMixin`, `BudgetMixin`, `ResumingMixin`, `RetentionMixin` and `CardMixin` override.
    Coupling `decoupled` is a hook after the optimizer's step, set when training begins.

    With `ewc_synaptic=True`, penalty or not, `synaptic_consolidation()` tells afterwards what the run learned.
    """

    __signature__ = CompleteSignature()

    def __init__(
        self,
        *args: Any,
        consolidation: Consolidation | str | os.PathLike[str] | None = None,
        rehearsal: Rehearsal | str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take every argument of the trainer class, `retention_texts` (see `RetentionMixin`), and two more.

        Args:
            args: of the trainer class.
            consolidation: what to remember, or where it is stored: a folder, or a Hub id `owner/name@revision/folder`.
            rehearsal: rows with the old model's answers, at which it is kept (see `Rehearser`), or where they are
                stored. With `rehearsal_weight=0` they are not read.
            kwargs: of the trainer class.

        Raises:
            ValueError: the consolidation or the rows cannot be read, or are of another model, the consolidation is in
                a unit for which no default of lambda was measured, or the engine is not supported.
        """
        super().__init__(*args, **kwargs)
        self._ewc = self.args if isinstance(self.args, EWCFields) else EWCFields()
        self._penalty: CoupledPenalty | None = None
        self._step_hook: RemovableHandle | None = None
        self._synaptic = SynapticIntelligence() if self._ewc.ewc_synaptic else None
        if self._synaptic is not None:
            self.add_callback(self._synaptic)
        self._protected: frozenset[str] = frozenset()
        self._held_values: dict[str, float] = {}
        self._remembered: Remembered | None = None
        if consolidation is not None or rehearsal is not None:
            self.accelerator.wait_for_everyone()  # one process may be writing them
        if isinstance(consolidation, Consolidation):
            self._remembered = consolidation
        elif consolidation is not None:
            self._remembered = StoredConsolidation.open(consolidation, token=self.args.hub_token, collective=True)
        if self._remembered is not None and agreed(partial(self._require_penalty_can_act, self._remembered)) > 0:
            self.add_callback(PenaltyRecord())
        self._rehearsal = rehearsal
        self._rehearser: Rehearser | None = None
        if rehearsal is not None and (rehearser := agreed(self._rehearser_in_force)) is not None:
            self._rehearser = rehearser
            self.add_callback(RehearsalRecord())
        if self._remembered is not None or rehearsal is not None:
            self.add_callback(_TrainingBegins(self))
            self.add_callback(HeldProgress(self))
        if self._remembered is None and self._ewc.ewc_lambda:
            logger.warning(f"ewc_lambda={self._ewc.ewc_lambda:g} has no effect without a consolidation, which is None")

    def _require_penalty_can_act(self, remembered: Remembered) -> float:
        """Return the lambda in force, after all that can be checked before training was found right if it is not 0."""
        ewc_lambda = self._ewc.lambda_in(remembered.metadata["unit"])
        if ewc_lambda > 0:
            require_engine(self, adds_gradient=coupling_of(self._ewc.ewc_coupling, self.model) is Coupling.LOSS)
            self._protected = protected_now(self._protected, remembered, self.model, bool(self.model_init))
            if isinstance(remembered, Consolidation):
                remembered.own_anchor(self._protected)
        return ewc_lambda

    def _rehearser_in_force(self) -> Rehearser | None:
        """Return what rehearses at the weight in force, if that is not 0, after all that can be checked."""
        if self._rehearsal is None or self._ewc.rehearsal_weight == 0:
            return None
        return self._rehearser or Rehearser(self, self._rehearsal, self._ewc)

    def _has_state_of_its_own(self) -> bool:
        return super()._has_state_of_its_own() or self._remembered is not None or self._rehearser is not None

    def _require_resumable(self, checkpoint: Path) -> None:
        """Refuse to drop a checkpoint's penalty because no consolidation is given, and to change its rehearsal."""
        if self._ewc.ewc_allow_change:
            return
        states = states_in(checkpoint)
        recorded = recorded_penalty(states) if self._remembered is None else None
        if recorded is not None:
            require_same_penalty(recorded, None)
        rehearser = self._rehearser_in_force()
        require_same_rehearsal(states, None if rehearser is None else rehearser.record)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save as usual, without the record of what held the run that this one resumed and no longer holds it."""
        for record, holds in ((PenaltyRecord, self._penalty), (RehearsalRecord, self._rehearser)):
            if holds is None:
                self._forget(record)
        super()._save_checkpoint(model, trial)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Let rehearsal rows ride; add the closed-form gradient on the micro-batch that completes the step's."""
        with nullcontext() if self._rehearser is None else self._rehearser.beside(model):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self._penalty is not None and self.accelerator.sync_gradients:
            self._penalty.add_gradient(self.accelerator.scaler)
        return loss

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Log the training loss with what holds the model, for which engines need all processes."""
        if self.control.should_log:
            self._held_values = {} if self._penalty is None else self._penalty.values()
            self._held_values |= {} if self._rehearser is None else self._rehearser.values()
        super()._maybe_log_save_evaluate(*args, **kwargs)
        self._held_values = {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the penalty's value and the rehearsal's beside the training loss, where the training logs it."""
        super().log({**logs, **self._held_values} if "loss" in logs else logs, start_time)

    def synaptic_consolidation(self) -> Consolidation:
        """Return what the last `train()` learned, with the weights as they are now as anchor; in every process.

        Raises:
            ValueError: `ewc_synaptic` is off, or no training has finished.
        """
        if self._synaptic is None:
            raise ValueError("expected ewc_synaptic=True, got False; switch it on in the arguments and train again")
        return self._synaptic.consolidation()

    def _couple(self) -> None:
        """Couple what holds the model to the run that begins or resumes."""
        self._uncouple_penalty()
        self._rehearser = self._rehearser_in_force()
        if self._rehearser is not None:
            self._rehearser.begin()
            self._record(RehearsalRecord, rehearsal=self._rehearser.record)
        if self._remembered is not None:
            self._couple_penalty(self._remembered)

    def _couple_penalty(self, consolidation: Remembered) -> None:
        """Couple the penalty to the model and optimizer as they are now, if lambda is not 0 now."""
        options = self._ewc
        bfloat16 = options.ewc_state_dtype == StateDtype.BFLOAT16
        if (ewc_lambda := self._require_penalty_can_act(consolidation)) == 0:
            resumed_penalty(self.state, None, options.ewc_allow_change)
            return
        if isinstance(consolidation, HeldConsolidation):
            consolidation.require_precision(bfloat16)
        parameters = stepped_parameters(self.model, self.optimizer)
        optimizer, coupling = parameters.optimizer, coupling_of(options.ewc_coupling, self.model)
        given_alpha = options.ewc_alpha if options.ewc_stabilized else 0.0
        given = penalty_record(consolidation.metadata, ewc_lambda, coupling, given_alpha, optimizer)
        recorded = resumed_penalty(self.state, given, options.ewc_allow_change)
        peaks = (recorded or given)["peak_learning_rates"]
        self._record(PenaltyRecord, penalty={**given, "peak_learning_rates": peaks})
        alphas = peaks if given_alpha is None else [given_alpha] * len(optimizer.param_groups)
        compiled, offload = self.args.torch_compile, options.ewc_offload
        diagonal, of_adapters = terms_of(consolidation, self.model, parameters, bfloat16, offload, compiled)
        in_nats = consolidation.metadata["unit"] == NATS_PER_TOKEN
        penalty = CoupledPenalty([diagonal, *of_adapters], parameters, coupling, ewc_lambda, alphas, in_nats)
        require_all_coupled(self._protected, diagonal.names.union(*(term.names for term in of_adapters)))
        if self.state.global_step == 0:
            warn_if_far(consolidation, parameters, diagonal, of_adapters)
        self._penalty, self._step_hook = penalty, optimizer.register_step_post_hook(penalty.pull)
        if (offload or bfloat16) and not (isinstance(consolidation, StoredConsolidation) or of_adapters):
            self._remembered = diagonal.held(consolidation.metadata)

    def _uncouple_penalty(self) -> None:
        """Take the hook off the optimizer and let go of importance and anchor."""
        if self._step_hook is not None:
            self._step_hook.remove()
        self._penalty = self._step_hook = None


class EWCTrainer(EWCMixin, Trainer):
    """`transformers.Trainer` held by EWC, self-rehearsal or both; plain `TrainingArguments` get `EWCFields`' defaults.

    >>> trainer = EWCTrainer(model=model, args=EWCConfig("out"), consolidation="old", train_dataset=blocks)
    """


class _TrainingBegins(TrainerCallback):
    """Couples what holds the model when training begins: until then engines replace the model and the optimizer."""

    def __init__(self, trainer: EWCMixin) -> None:
        self._trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Couple the penalty and begin to rehearse; the state of a resumed run is loaded by then."""
        agreed(self._trainer._couple)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Uncouple it, so that a later `train()` begins anew."""
        self._trainer._uncouple_penalty()

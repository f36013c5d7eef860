"""`EWCTrainer`: `transformers.Trainer` that holds weights near what they knew."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .checkpoints import last_complete_checkpoint, remove_half_written
from .config import EWCFields, StateDtype
from .consolidation import Consolidation
from .coupling import CoupledPenalty, Coupling, require_matching_model
from .engines import local_parameters, require_engine
from .importance import SynapticIntelligence
from .importance.weight_path import STATE_NAME as SYNAPTIC_STATE_NAME
from .perplexity import evaluate_perplexity
from .stored import StoredConsolidation

if TYPE_CHECKING:
    from transformers import Trainer as _SomeTrainer
else:
    _SomeTrainer = object


class EWCMixin(_SomeTrainer):
    """Adds the penalty and retention text to a `Trainer` class that comes after it: `class X(EWCMixin, SFTTrainer)`.

    Without a consolidation, and with `ewc_lambda=0`, it is that class bit for bit.

    It overrides:
        `train`, since `resume_from_checkpoint=True` has to pass over a checkpoint that was being saved at a kill;
        `_save_checkpoint` and `_save_rng_state`, so that a checkpoint is complete no sooner than all of it is there;
        `training_step`, since gradients are reduced and not yet clipped where it returns: coupling `loss`;
        `log`, to add the penalty's value where it logs the training loss;
        `evaluation_loop`, to add the perplexity on retention text before callbacks see the metrics.
    Coupling `decoupled` is a hook after the optimizer's step, set when training begins.

    With `ewc_synaptic=True`, whether there is a penalty or not, what the run learns can be remembered afterwards:
    `synaptic_consolidation()` is the result of the callback `SynapticIntelligence`.
    """

    def __init__(
        self,
        *args: Any,
        consolidation: Consolidation | str | os.PathLike[str] | None = None,
        retention_texts: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take every argument of the trainer class, and two more.

        Args:
            args: of the trainer class.
            consolidation: what the model has to remember, or the folder or Hub id where it is stored.
            retention_texts: held-out documents by name; `evaluate()` then reports, beside what it reports on
                `eval_dataset`, `eval_{name}_loss` (nats per token), `_perplexity` and `_bits_per_byte`.
            kwargs: of the trainer class.

        Raises:
            ValueError: the consolidation cannot be read or is of another model, the engine is not supported,
                retention texts are given without a tokenizer, or the best model would be the one that forgot most.
        """
        super().__init__(*args, **kwargs)
        self._ewc = self.args if isinstance(self.args, EWCFields) else EWCFields()
        self._penalty: CoupledPenalty | None = None
        self._step_hook: RemovableHandle | None = None
        self._synaptic = SynapticIntelligence() if self._ewc.ewc_synaptic else None
        if self._synaptic is not None:
            self.add_callback(self._synaptic)
        self._retention_texts = dict(retention_texts or {})
        if self._retention_texts and self.processing_class is None:
            raise ValueError("expected a tokenizer for retention_texts, got None; pass `processing_class=tokenizer`")
        best = (self.args.metric_for_best_model or "").removeprefix("eval_")
        if self.args.greater_is_better and any(best.startswith(f"{name}_") for name in self._retention_texts):
            raise ValueError(f"expected greater_is_better=False for '{best}', which is better when lower, got True")
        if consolidation is not None and self._ewc.ewc_lambda > 0:
            require_engine(self, adds_gradient=self._ewc.ewc_coupling == Coupling.LOSS)
            remembered: Consolidation | StoredConsolidation
            if isinstance(consolidation, Consolidation):
                remembered = consolidation
                remembered.own_anchor()
            else:
                self.accelerator.wait_for_everyone()  # one process may be writing it
                remembered = StoredConsolidation.open(consolidation, together=True)
            require_matching_model(remembered, self.model)
            self.add_callback(_PenaltyCallback(self, remembered))

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as usual; `resume_from_checkpoint=True` goes on from the last checkpoint that is complete.

        Raises:
            ValueError: no checkpoint in `output_dir` is complete.
        """
        if resume_from_checkpoint is True:
            folder = Path(self.args.output_dir)
            also = [SYNAPTIC_STATE_NAME] if self._synaptics() else []
            resume_from_checkpoint = last_complete_checkpoint(folder, also)
            if resume_from_checkpoint is None:
                raise ValueError(
                    f"expected a complete checkpoint in '{folder}', got none; leave out `resume_from_checkpoint`"
                )
            if self.args.should_save and (self.args.save_total_limit or 0) > 0:
                remove_half_written(folder, later_than=resume_from_checkpoint)
        for synaptic in self._synaptics():
            path = resume_from_checkpoint if isinstance(resume_from_checkpoint, str | os.PathLike) else None
            synaptic.checkpoint = None if path is None else Path(path)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save as usual, after the sums of Synaptic Intelligence; an older checkpoint there is complete no more."""
        checkpoint = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            (checkpoint / TRAINER_STATE_NAME).unlink(missing_ok=True)
        if not self.args.save_only_model:
            for synaptic in self._synaptics():
                synaptic.save(checkpoint, self.state.global_step)
        super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        """Save as usual, and wait: the first process is about to declare the checkpoint complete."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _synaptics(self) -> list[SynapticIntelligence]:
        """Return the callbacks that accrue Synaptic Intelligence, the trainer's own and any given to it."""
        return [callback for callback in self.callback_handler.callbacks if isinstance(callback, SynapticIntelligence)]

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Add the closed-form gradient once per optimizer step: on the micro-batch that completes the gradient."""
        loss = super().training_step(model, *args, **kwargs)
        if self._penalty is not None and self.accelerator.sync_gradients:
            self._penalty.add_gradient(self.accelerator.scaler)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the penalty's value beside the training loss."""
        if self._penalty is not None and "loss" in logs:
            logs = {**logs, **self._penalty.values()}
        super().log(logs, *args, **kwargs)

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Evaluate as usual, and read the retention texts once: where there are several datasets, with the first."""
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        first = f"eval_{next(iter(self.eval_dataset))}" if isinstance(self.eval_dataset, dict) else "eval"
        if metric_key_prefix == first:
            for name, texts in self._retention_texts.items():
                result = evaluate_perplexity(
                    self.model,
                    self.processing_class,
                    texts,
                    batch_size=self.args.per_device_eval_batch_size,
                    progress=not self.args.disable_tqdm,
                )
                output.metrics[f"eval_{name}_loss"] = result.nll
                output.metrics[f"eval_{name}_perplexity"] = result.perplexity
                output.metrics[f"eval_{name}_bits_per_byte"] = result.bits_per_byte
        return output

    def synaptic_consolidation(self) -> Consolidation:
        """Return what the last `train()` learned, with the weights as they are now as anchor; in every process.

        Raises:
            ValueError: `ewc_synaptic` is off, or no training has finished.
        """
        if self._synaptic is None:
            raise ValueError("expected ewc_synaptic=True, got False; switch it on in the arguments and train again")
        return self._synaptic.consolidation()

    def _couple_penalty(self, consolidation: Consolidation | StoredConsolidation) -> None:
        """Couple the penalty to the model and optimizer of the run that begins or resumes."""
        options, parameters = self._ewc, local_parameters(self.model, self.optimizer)
        optimizer = parameters.optimizer
        run = {
            "anchor": consolidation.metadata["anchor"],
            "importance_fingerprint": consolidation.metadata["importance_fingerprint"],
            "peak_learning_rates": [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups],
        }
        recorded = self.state.stateful_callbacks.setdefault("ewc", run)
        if (recorded["anchor"]["fingerprint"], recorded["importance_fingerprint"]) != (
            run["anchor"]["fingerprint"],
            run["importance_fingerprint"],
        ):
            raise ValueError(
                f"expected the consolidation that the checkpoint was trained with, {recorded}, got another, {run}; "
                "pass the same one to resume"
            )
        alphas = recorded["peak_learning_rates"]
        if not options.ewc_stabilized or options.ewc_alpha is not None:
            alphas = [options.ewc_alpha if options.ewc_stabilized else 0.0] * len(optimizer.param_groups)
        self._uncouple_penalty()
        self._penalty = CoupledPenalty(
            consolidation,
            parameters,
            Coupling(options.ewc_coupling),
            options.ewc_lambda,
            alphas,
            bfloat16=options.ewc_state_dtype == StateDtype.BFLOAT16,
            offload=options.ewc_offload,
            fused=self.args.torch_compile
            or (find_spec("triton") is not None and all(p.weight.is_cuda for p in parameters)),
        )
        self._step_hook = optimizer.register_step_post_hook(self._penalty.pull)

    def _uncouple_penalty(self) -> None:
        """Take the hook off the optimizer and let go of importance and anchor."""
        if self._step_hook is not None:
            self._step_hook.remove()
        self._penalty = self._step_hook = None


class EWCTrainer(EWCMixin, Trainer):
    """`transformers.Trainer` with the penalty of Elastic Weight Consolidation.

        trainer = EWCTrainer(model=model, args=EWCConfig("out"), consolidation="ckpt", train_dataset=dataset)

    It takes `EWCConfig` and plain `TrainingArguments`, for which the defaults of `EWCFields` hold.
    """


class _PenaltyCallback(TrainerCallback):
    """Couples the penalty when training begins: until then engines replace the model and the optimizer."""

    def __init__(self, trainer: EWCMixin, consolidation: Consolidation | StoredConsolidation) -> None:
        self._trainer, self._consolidation = trainer, consolidation

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Couple the penalty; the state of a resumed run is loaded by then."""
        self._trainer._couple_penalty(self._consolidation)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Uncouple it, so that a later `train()` begins anew."""
        self._trainer._uncouple_penalty()

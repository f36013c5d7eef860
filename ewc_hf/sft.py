"""`EWCSFTTrainer`: TRL's `SFTTrainer` that holds what the model knew. This is the only file that imports trl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from trl import SFTConfig, SFTTrainer

from .config import EWCFields
from .trainer import EWCMixin


@dataclass
class EWCSFTConfig(EWCFields, SFTConfig):
    """TRL's `SFTConfig` with the options of the penalty and of rehearsal."""


class _LogitsTrainer(SFTTrainer):
    """`SFTTrainer` whose steps yield logits where rehearsal rows ride in them.

    TRL computes its loss, the same mean negative log-likelihood, without ever holding logits. Where rows ride it is
    the model's own loss instead, which holds them, and TRL's metrics of the training (`entropy`,
    `mean_token_accuracy`, `num_tokens`) are not logged, and evaluations count no tokens.

    It overrides `compute_loss`.
    """

    _rehearser: Any = None

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Compute it as TRL does, or in steps with rehearsal rows as `transformers.Trainer` does."""
        rows_ride = self._rehearser is not None and model.training
        loss_of = super(SFTTrainer, self).compute_loss if rows_ride else super().compute_loss
        return loss_of(model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch)


class EWCSFTTrainer(EWCMixin, _LogitsTrainer):
    """`trl.SFTTrainer` with the penalty of Elastic Weight Consolidation, with self-rehearsal, or with both.

        trainer = EWCSFTTrainer("gpt2", EWCSFTConfig("out"), train_dataset=chats, consolidation="gpt2-old")

    It takes every argument of `SFTTrainer`, `peft_config` among them: a consolidation of the base model protects one
    that LoRA tunes.

    Raises:
        ValueError: as `EWCMixin`, and rehearsal with a loss other than the mean negative log-likelihood (`dft`), or
            with a mixture of experts that has an auxiliary loss.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._rehearser is not None and self.aux_loss_enabled:
            raise ValueError(
                "expected a model without auxiliary loss beside rehearsal, got a mixture of experts, whose routers' "
                "loss TRL weighs in its own way; set `router_aux_loss_coef=0.0`, or train without `rehearsal`"
            )
        if self._rehearser is not None and self.args.loss_type != "nll":
            raise ValueError(
                f"expected loss_type='nll' beside rehearsal, whose rows need logits, got '{self.args.loss_type}'; "
                "leave one of them out"
            )

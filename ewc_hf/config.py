"""`EWCFields`, the options of the penalty, and `EWCConfig`, which adds them to `TrainingArguments`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from transformers import TrainingArguments
from transformers.utils import ExplicitEnum

from .coupling import Coupling


class StateDtype(ExplicitEnum):
    """The precision in which importance and anchor are held while a model is trained."""

    FLOAT32 = "float32"
    """As they were estimated: float32, for float64 models float64."""

    BFLOAT16 = "bfloat16"
    """Importance rounded to 8 significant bits; the anchor where that loses nothing, as of a bfloat16 checkpoint."""


@dataclass
class EWCFields:
    """The options of the penalty, to be mixed into any `TrainingArguments`.

        class EWCSFTConfig(EWCFields, SFTConfig): ...

    The defaults are for Fisher importance, and measured: on a GPT-2 of 5 million weights pretrained on books and then
    fine-tuned on dialogs (200 steps of AdamW at 5e-4, three seeds), `ewc_lambda=30` in the `decoupled` coupling
    removed 53% of the forgetting while the dialog NLL rose by 1.8% (recipes/results/forgetting_study). Other
    importances have a unit and so a lambda of their own.

    Raises:
        ValueError: lambda or alpha negative or not finite, or an unknown coupling or dtype.
    """

    ewc_lambda: float = field(
        default=30.0,
        metadata={"help": "Strength of the penalty. For Fisher a pure number; 0 is plain fine-tuning."},
    )
    ewc_coupling: Coupling | str = field(
        default=Coupling.DECOUPLED,
        metadata={"help": "'loss' adds the penalty's gradient before clipping, 'decoupled' pulls after the step."},
    )
    ewc_stabilized: bool = field(
        default=True,
        metadata={"help": "Coupling 'loss': divide the importance by 1 + alpha*lambda*importance."},
    )
    ewc_alpha: float | None = field(
        default=None,
        metadata={"help": "Coupling 'loss': alpha of the stabilization; by default each group's peak learning rate."},
    )
    ewc_state_dtype: StateDtype | str = field(
        default=StateDtype.FLOAT32,
        metadata={"help": "'bfloat16' halves the importance, and the anchor where bfloat16 holds it without loss."},
    )
    ewc_offload: bool = field(
        default=False,
        metadata={"help": "Leave importance and anchor in the host's memory, from where each step reads them."},
    )
    ewc_synaptic: bool = field(
        default=False,
        metadata={"help": "Accrue Synaptic Intelligence while training, for `trainer.synaptic_consolidation()`."},
    )

    def __post_init__(self) -> None:
        """Check the options, then let the training arguments check theirs."""
        given = {"ewc_lambda": self.ewc_lambda} | ({} if self.ewc_alpha is None else {"ewc_alpha": self.ewc_alpha})
        for name, value in given.items():
            if value is None or not (math.isfinite(value) and value >= 0):
                raise ValueError(f"expected {name} to be a finite number >= 0, got {value}; 0 switches it off")
        self.ewc_coupling = Coupling(self.ewc_coupling)
        self.ewc_state_dtype = StateDtype(self.ewc_state_dtype)
        if isinstance(self, TrainingArguments):
            super().__post_init__()  # type: ignore[misc]


@dataclass
class EWCConfig(EWCFields, TrainingArguments):
    """`TrainingArguments` with the options of the penalty."""

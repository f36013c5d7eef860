"""`EWCFields`, the options of penalty and rehearsal, and `EWCConfig`, which adds them to `TrainingArguments`."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, field

from transformers import TrainingArguments
from transformers.utils import ExplicitEnum

from .consolidation import NATS_PER_TOKEN
from .importance import Method
from .penalty import Coupling

DEFAULT_LAMBDA = 30.0
"""For an importance in nats per token."""

_MEASURED_LAMBDAS = {Method.MAS: 100, Method.L2: 0.01}
"""In other units, from the forgetting study: MAS with coupling `decoupled`, L2 with `loss`."""


_ARGS, _KEYWORD, _KWARGS = (
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
)


class StateDtype(ExplicitEnum):
    """The precision in which importance and anchor are held while a model is trained."""

    FLOAT32 = "float32"
    """As they were estimated: float32, for float64 models float64."""

    BFLOAT16 = "bfloat16"
    """Importance rounded to 8 significant bits; the anchor where that loses nothing, as of a bfloat16 checkpoint."""


@dataclass
class EWCFields:
    """The options of the penalty and of rehearsal, to be mixed into any `TrainingArguments`.

    >>> @dataclass
    ... class EWCSeq2SeqConfig(EWCFields, Seq2SeqTrainingArguments): ...

    By default lambda is 30 where the importance is in nats per token (Fisher), which was measured: on a GPT-2 of 5
    million weights pretrained on books and then fine-tuned on dialogs (200 steps of AdamW at 5e-4, three seeds) it
    removed 53% of the forgetting in the `decoupled` coupling, while the NLL on dialogs rose by 1.8%
    (recipes/results/forgetting_study). An importance in another unit needs a lambda of its own.

    Two rehearsal rows beside eight of the task, at weight 1, removed 82% of the forgetting there, while the NLL on
    dialogs rose by 1.4%; beside EWC at lambda 3 85%, for 1.6%. At equal task NLL one row, or two in every second step,
    held 4 points less, and four rows 4 points more, which cost their time (one seed).

    Raises:
        ValueError: lambda, alpha or the rehearsal's weight negative or not finite, a budget that is not positive or
            beside Synaptic Intelligence, no rehearsal row, or an unknown coupling or dtype.
    """

    ewc_lambda: float | None = field(
        default=None,
        metadata={
            "help": "Strength of the penalty; 0 is plain fine-tuning. Default 30 for an importance in nats per token, "
            "such as Fisher's; in another unit it has to be given."
        },
    )
    ewc_coupling: Coupling | str | None = field(
        default=None,
        metadata={
            "help": "'loss' adds the penalty's gradient before clipping, 'decoupled' pulls after the step. Default "
            "'decoupled', and 'loss' on low-rank adapters."
        },
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
    ewc_allow_change: bool = field(
        default=False,
        metadata={"help": "Resume with another penalty or rehearsal than the checkpoint's, or without it."},
    )
    rehearsal_weight: float = field(
        default=1.0,
        metadata={"help": "Nats of the task that a nat of divergence from the old answers weighs; 0 switches it off."},
    )
    rehearsal_rows: int = field(
        default=2, metadata={"help": "Rehearsal rows that ride in each micro-batch on each device."}
    )
    max_forgetting: float | None = field(
        default=None,
        metadata={
            "help": "Nats per token that retention texts may lose: after training, the model goes back towards where "
            "it began as far as that asks for. Default: no limit."
        },
    )
    ewc_synaptic: bool = field(
        default=False,
        metadata={"help": "Accrue Synaptic Intelligence while training, for `trainer.synaptic_consolidation()`."},
    )

    def __post_init__(self) -> None:
        """Check the options, then let the training arguments check theirs."""
        self.ewc_lambda = _checked("ewc_lambda", self.ewc_lambda)
        self.ewc_alpha = _checked("ewc_alpha", self.ewc_alpha)
        weight = _checked("rehearsal_weight", self.rehearsal_weight)
        if weight is None or self.rehearsal_rows < 1:
            raise ValueError(
                f"expected a rehearsal_weight and rehearsal_rows >= 1, got {weight} and {self.rehearsal_rows}; a "
                "weight of 0 switches rehearsal off"
            )
        self.rehearsal_weight = weight
        self.max_forgetting = _budget(self.max_forgetting)
        if self.max_forgetting is not None and self.ewc_synaptic:
            raise ValueError(
                "expected max_forgetting without ewc_synaptic, got both; the way that Synaptic Intelligence counts is "
                "not the one that a model has gone which went back: leave one of them out"
            )
        self.ewc_coupling = None if self.ewc_coupling is None else Coupling(self.ewc_coupling)
        self.ewc_state_dtype = StateDtype(self.ewc_state_dtype)
        if isinstance(self, TrainingArguments):
            super().__post_init__()  # type: ignore[misc]

    def lambda_in(self, unit: str) -> float:
        """Return lambda for an importance in a unit: `ewc_lambda` as it is at this moment, else a measured default.

        Raises:
            ValueError: `ewc_lambda` is negative or not finite, or not given while the unit has no default.
        """
        if (given := _checked("ewc_lambda", self.ewc_lambda)) is not None:
            return given
        if unit != NATS_PER_TOKEN:
            measured = ", ".join(f"{value:g} for {method.title}" for method, value in _MEASURED_LAMBDAS.items())
            raise ValueError(
                f"expected ewc_lambda for an importance in '{unit}', got None, whose default is for "
                f"'{NATS_PER_TOKEN}'; pass one (measured to work: {measured})"
            )
        return DEFAULT_LAMBDA


@dataclass
class EWCConfig(EWCFields, TrainingArguments):
    """`TrainingArguments` with the options of the penalty and of rehearsal.

    >>> args = EWCConfig("out", ewc_lambda=3, max_forgetting=0.05, learning_rate=5e-4, max_steps=200)
    """


class CompleteSignature:
    """What a class takes in all, as its `__signature__`, for editors and notebooks.

    An `__init__` with `**kwargs` hands them on to the next one in the order of the class's bases, and `*args` as well
    where it has these and no default before them.
    """

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        """Return the signature of the class that is asked, be it a subclass with an `__init__` of its own."""
        parameters: dict[str, inspect.Parameter] = {}
        handed_on, rest = {_ARGS, _KWARGS}, []
        for maker in [vars(cls)["__init__"] for cls in owner.__mro__[:-1] if "__init__" in vars(cls)]:
            _, *own = inspect.signature(maker).parameters.values()
            if _ARGS not in handed_on:
                own = [each.replace(kind=max(each.kind, _KEYWORD)) for each in own if each.kind is not _ARGS]
            new = {
                each.name: each for each in own if each.kind not in (_ARGS, _KWARGS) and each.name not in parameters
            }
            if any(each.kind < _ARGS and each.default is not each.empty for each in new.values()):
                handed_on.discard(_ARGS)
            handed_on &= {each.kind for each in own}
            parameters, rest = parameters | new, [each for each in own if each.kind in handed_on]
            if _KWARGS not in handed_on:
                break
        in_order = [*parameters.values(), *rest]
        return inspect.Signature(sorted(in_order, key=lambda each: each.kind))


def _budget(value: float | str | None) -> float | None:
    """Return nats per token, which may come as text."""
    number = _number(value)
    if number is not None and not 0 < number < math.inf:
        raise ValueError(
            f"expected a positive, finite max_forgetting, in nats per token as 0.05 is, got {value}; None is no limit"
        )
    return number


def _checked(name: str, value: float | str | None) -> float | None:
    """Return a number, which may come as text."""
    number = _number(value)
    if number is not None and not (math.isfinite(number) and number >= 0):
        raise ValueError(f"expected {name} to be a finite number >= 0, got {value}; 0 switches it off")
    return number


def _number(value: float | str | None) -> float | None:
    """Return a number that may come as text, as `TrainingArguments` takes learning rates; NaN of text that is none."""
    try:
        return None if value is None else float(value)
    except ValueError:
        return math.nan

"""What a study compares: named ways to fine-tune, each some arguments that differ from the study's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..config import EWCConfig
from ..importance import Method
from .records import PLAIN
from .ways import Way

INTERPOLATED = "interpolated"
LORA_RANK = "lora_rank"
"""How a setting is written that trains adapters, protected in some way."""
NO_PULL = "low-rank adapters are held by the coupling 'loss' only"
IMPORTANCE_FROM, OWN = "importance_from", "own"
"""How a penalty is written whose importance is estimated on text that the old model wrote."""
MAX_FORGETTING = "max_forgetting"
_LOWER_IS_WEAKER = {"learning_rate": "lower learning rate", "max_steps": "fewer steps"}
"""Options of the training that make it learn less, and what a curve over them is called."""


@dataclass(frozen=True)
class Setting:
    """One way to fine-tune.

    Attributes:
        name: of its runs in the report.
        way: what is done.
        method: whose importance the penalty has; None where there is no penalty.
        strength: how much of it, where that is no argument of the training: a weight, a share or a rank.
        overrides: arguments of `EWCConfig` by name, in place of the study's.
        rows: how its rehearsal rows are made, in place of the study's `Measurement`.
        beside_rank: rank of the adapters that are trained in place of the weights, where the way itself is not LoRA.
        by_own_text: whether its importance is estimated on text that the old model wrote.
        interpolated: whether models between the pretrained one and the trained one are measured too.
    """

    name: str
    way: Way = Way.PLAIN
    method: Method | None = None
    strength: float | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, Any] = field(default_factory=dict)
    beside_rank: int | None = None
    by_own_text: bool = False
    interpolated: bool = False

    @property
    def rehearses(self) -> bool:
        """Whether rows that the old model wrote, or old text with its answers, ride in each batch."""
        return self.way in (Way.REHEARSAL, Way.OLD_ANSWERS) or self._beside_penalty

    @property
    def needs_old_text(self) -> bool:
        """Whether old text is read, for an importance or in the training."""
        return self.way.needs_old_text or (self.method not in (None, Method.L2) and not self.by_own_text)

    @property
    def rank(self) -> int | None:
        """Of the adapters that are trained; None where the weights themselves are."""
        return int(self.strength) if self.way is Way.LORA and self.strength is not None else self.beside_rank

    @property
    def counts_steps(self) -> bool:
        """Whether an epoch would be another one than plain fine-tuning's, or none is meant."""
        return self.way in (Way.REPLAY, Way.SELF_REPLAY) or "max_steps" in self.overrides

    @property
    def family(self) -> str:
        """What its curves have their colour by."""
        if self.method is None:
            return self.way.value
        return f"{self.method.value} + {Way.REHEARSAL.value}" if self._beside_penalty else self.method.value

    @property
    def told(self) -> dict[str, Any]:
        """What it changes, for its record."""
        strength = {} if self.strength is None else {"strength": self.strength}
        return {**self._changes, **self.rows, **strength}

    @property
    def _changes(self) -> dict[str, Any]:
        """What it changes of all but its rows and its strength."""
        adapters = {} if self.beside_rank is None else {LORA_RANK: self.beside_rank}
        return {**self.overrides, **adapters, **({IMPORTANCE_FROM: OWN} if self.by_own_text else {})}

    @property
    def point(self) -> tuple[str, float, str] | None:
        """The curve that it is a point of, its strength there, which rises with protection, and its label."""
        if (budget := self.overrides.get(MAX_FORGETTING)) is not None:
            others = {key: value for key, value in self.overrides.items() if key != MAX_FORGETTING}
            return f"{replace(self, overrides=others)._named}, to a budget", 1 / budget, f"{budget:g}"
        others = self._changes
        if self._beside_penalty:
            weight, title = others.pop("rehearsal_weight"), f"{self._title(others)} {others.pop('ewc_lambda'):g}"
            return _with_options(f"{title} + {Way.REHEARSAL.called}", self.rows), weight, f"{weight:g}"
        if self.method is not None:
            strength = others.pop("ewc_lambda")
            return self._title(others), strength, f"{strength:g}"
        for option, title in _LOWER_IS_WEAKER.items():
            if option in others and self.way in (Way.PLAIN, Way.LORA):
                value = others.pop(option)
                title = title if self.way is Way.PLAIN else self._called
                return _with_options(title, others), 1 / value, f"{value:g}"
        if self.way.takes_strengths and self.way is not Way.LORA:
            strength = others.pop("rehearsal_weight", self.strength)
            return _with_options(self.way.called, {**others, **self.rows}), strength, f"{strength:g}"
        return None

    @property
    def line(self) -> str:
        """What the curve of the models between the pretrained one and this is called."""
        return f"{self._named}, {INTERPOLATED}"

    @property
    def _named(self) -> str:
        """What it alone is called."""
        if self.point is None:
            return _with_options(self._called, {**self.overrides, **self.rows})
        return f"{self.point[0]} {self.point[2]}"

    @property
    def _called(self) -> str:
        return f"{self.way.called}, rank {self.strength:g}" if self.way is Way.LORA else self.way.called

    @property
    def _beside_penalty(self) -> bool:
        return self.method is not None and "rehearsal_weight" in self.overrides

    def _title(self, others: dict[str, Any]) -> str:
        assert self.method is not None
        named = {key: value for key, value in others.items() if key not in ("ewc_coupling", "ewc_lambda")}
        return _with_options(f"{self.method.title}, {others['ewc_coupling']}", named)


def curves_through(
    setting: Setting, settings: Sequence[Setting], training: EWCConfig, fraction: float = 1.0
) -> dict[str, float]:
    """Return each curve that a model of a setting is a point of, and its strength there.

    Plain fine-tuning is where the curves over fewer steps and lower learning rates begin.

    Args:
        setting: the one asked about.
        settings: all of the study.
        training: what they change.
        fraction: of the way from the pretrained to the trained weights.
    """
    if fraction < 1:
        return {setting.line: 1 - fraction}
    curves = {setting.line: 0.0} if setting.interpolated else {}
    if setting.point is not None:
        curves[setting.point[0]] = setting.point[1]
    if setting.name == PLAIN:
        others = {other.point[0] for other in settings if other.way is Way.PLAIN and other.point is not None}
        curves |= {
            title: 1 / getattr(training, option) for option, title in _LOWER_IS_WEAKER.items() if title in others
        }
    return curves


def _with_options(title: str, options: Mapping[str, Any]) -> str:
    return ", ".join([title, *(f"{key}={value}" for key, value in options.items())])

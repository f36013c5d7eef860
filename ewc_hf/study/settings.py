"""What a study compares: named ways to fine-tune, each some arguments that differ from the study's own."""

from __future__ import annotations

import itertools
import math
from argparse import Action, ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from transformers import HfArgumentParser

from ..config import EWCConfig
from ..importance import Method
from ..penalty import Coupling
from .protocol import SET_BY_THE_STUDY, Measurement
from .records import PLAIN
from .ways import Way

INTERPOLATED = "interpolated"
_FORM = "'plain', 'fisher:loss:10,30,100', 'rehearsal:1,3' or 'plain:learning_rate=1e-4'"
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
        interpolated: whether models between the pretrained one and the trained one are measured too.
    """

    name: str
    way: Way = Way.PLAIN
    method: Method | None = None
    strength: float | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, Any] = field(default_factory=dict)
    interpolated: bool = False

    @property
    def rehearses(self) -> bool:
        """Whether rows that the old model wrote, or old text with its answers, ride in each batch."""
        return self.way in (Way.REHEARSAL, Way.OLD_ANSWERS) or self._beside_penalty

    @property
    def needs_old_text(self) -> bool:
        """Whether old text is read, for an importance or in the training."""
        return self.way.needs_old_text or self.method not in (None, Method.L2)

    @property
    def family(self) -> str:
        """What its curves have their colour by."""
        return self.way.value if self.method is None else self.method.value

    @property
    def told(self) -> dict[str, Any]:
        """What it changes, for its record."""
        return {**self.overrides, **self.rows, **({} if self.strength is None else {"strength": self.strength})}

    @property
    def point(self) -> tuple[str, float, str] | None:
        """The curve that it is a point of, its strength there, which rises with protection, and its label."""
        others = dict(self.overrides)
        if self._beside_penalty:
            weight, title = others.pop("rehearsal_weight"), f"{self._title(others)} {others.pop('ewc_lambda'):g}"
            return f"{title} + {Way.REHEARSAL.title}", weight, f"{weight:g}"
        if self.method is not None:
            strength = others.pop("ewc_lambda")
            return self._title(others), strength, f"{strength:g}"
        for option, title in _LOWER_IS_WEAKER.items():
            if option in others and self.way in (Way.PLAIN, Way.LORA):
                value = others.pop(option)
                title = title if self.way is Way.PLAIN else f"{Way.LORA.title}, rank {self.strength:g}"
                return _with_options(title, others), 1 / value, f"{value:g}"
        if self.way.takes_strengths and self.way is not Way.LORA:
            strength = others.pop("rehearsal_weight", self.strength)
            return _with_options(self.way.title, {**others, **self.rows}), strength, f"{strength:g}"
        return None

    @property
    def line(self) -> str:
        """What the curve of the models between the pretrained one and this is called."""
        title = self.way.title if self.point is None else f"{self.point[0]} {self.point[2]}"
        return f"{title}, {INTERPOLATED}"

    @property
    def _beside_penalty(self) -> bool:
        return self.method is not None and "rehearsal_weight" in self.overrides

    def _title(self, others: dict[str, Any]) -> str:
        assert self.method is not None
        named = {key: value for key, value in others.items() if key not in ("ewc_coupling", "ewc_lambda")}
        return _with_options(f"{self.method.title}, {others['ewc_coupling']}", named)


def parse_settings(specs: Sequence[str]) -> list[Setting]:
    """Read settings, of which each of several values makes one; `plain` is added where it is missing.

        plain                                       plain fine-tuning
        plain:learning_rate=1e-4,2e-4               any option of EWCConfig
        fisher:loss:10,30,100                       METHOD:COUPLING:LAMBDAS
        fisher:loss:30:ewc_stabilized=false         and any other option
        fisher:decoupled:10:rehearsal_weight=1,3    beside self-rehearsal
        rehearsal:1,3:rehearsal_top_k=8             WAY:WEIGHTS, also old_answers and lwf
        replay:0.125,0.25                           WAY:SHARES, also self_replay
        lora:8:learning_rate=1e-3,2e-3              a rank
        dft, eaft                                   token weightings
        rehearsal:1:interpolated                    any, and models between the pretrained one and it

    Raises:
        ValueError: a setting of another form, an unknown method, coupling or option, a value of another type, a
            strength that is no positive number, or a setting that comes twice.
    """
    settings = [] if any(spec.split(":") in ([PLAIN], [PLAIN, INTERPOLATED]) for spec in specs) else [Setting(PLAIN)]
    for spec in specs:
        try:
            settings += _parse(spec)
        except (ValueError, ArgumentTypeError) as error:
            raise ValueError(f"expected settings like {_FORM}, got '{spec}' ({error})") from error
    names = [setting.name for setting in settings]
    if len(set(names)) < len(names):
        raise ValueError(f"expected each setting once, got {names}; leave the repeated ones out")
    return sorted(settings, key=lambda setting: setting.name != PLAIN)


def _parse(spec: str) -> list[Setting]:
    head, *parts = spec.split(":")
    interpolated, parts = INTERPOLATED in parts, [part for part in parts if part != INTERPOLATED]
    given = [part.partition("=")[::2] for part in parts if "=" in part]
    positional = [part for part in parts if "=" not in part]
    varied = [[(option, text) for text in values.split(",")] for option, values in given]
    method, fixed = None, {}
    if head in [way.value for way in Way if way is not Way.PENALTY]:
        way = Way(head)
        if len(positional) != way.takes_strengths or any(option.startswith("ewc_") for option, _ in given):
            takes = "one list of strengths and" if way.takes_strengths else "nothing but"
            raise ValueError(f"'{head}' takes {takes} options of the training, such as learning_rate=1e-4")
        strengths = positional[0].split(",") if positional else []
        name = "rehearsal_weight" if way in (Way.REHEARSAL, Way.OLD_ANSWERS) else "strength"
    else:
        way, method = Way.PENALTY, Method(head)
        if method is Method.SYNAPTIC:
            raise ValueError("'synaptic' accrues while the old text is learned, which a study does not do")
        coupling, lambdas = positional
        if {"ewc_coupling", "ewc_lambda"} & {option for option, _ in given}:
            raise ValueError("coupling and lambda are given already")
        fixed = {"ewc_coupling": Coupling(coupling).value}
        strengths, name = lambdas.split(","), "ewc_lambda"
    if strengths:
        varied.insert(0, [(name, text) for text in strengths])
    settings = []
    for chosen in itertools.product(*varied):
        values = {option: float(text) if option == "strength" else _read(option, text) for option, text in chosen}
        names = [head, *fixed.values()]
        names += [f"{float(text):.12g}" if option == name else f"{option}={text}" for option, text in chosen]
        if strengths and not 0 < values[name] < math.inf:
            raise ValueError("strengths are finite and greater than 0")
        rows = {option: values.pop(option) for option in list(values) if option in _rows_options()}
        if rows and way not in (Way.REHEARSAL, Way.OLD_ANSWERS, Way.SELF_REPLAY) and "rehearsal_weight" not in values:
            raise ValueError(f"{sorted(rows)} say how rehearsal rows are made, of which there are none here")
        strength = values.pop("strength", None)
        settings.append(Setting("-".join(names), way, method, strength, {**fixed, **values}, rows, interpolated))
    return settings


def _read(option: str, text: str) -> Any:
    """Return the value of an option as the command line would read it."""
    actions = {**_options(EWCConfig), **_rows_options()}
    if option not in actions:
        raise ValueError(f"'{option}' is no option of EWCConfig that a setting may change")
    read = actions[option].type
    return read(text) if callable(read) else text


@cache
def _options(kind: type) -> dict[str, Action]:
    """Return how the command line reads each option; of `--x` and `--no_x` the former, which takes a value."""
    actions = reversed(HfArgumentParser([kind])._actions)
    return {action.dest: action for action in actions if action.dest not in {"help", *SET_BY_THE_STUDY}}


def _rows_options() -> dict[str, Action]:
    return {option: action for option, action in _options(Measurement).items() if option.startswith("rehearsal_")}


def _with_options(title: str, options: Mapping[str, Any]) -> str:
    return ", ".join([title, *(f"{key}={value}" for key, value in options.items())])


def curves_through(setting: Setting, settings: Sequence[Setting], training: EWCConfig) -> dict[str, float]:
    """Return each curve that a trained setting is a point of, and its strength there.

    Plain fine-tuning is where the curves over fewer steps and lower learning rates begin.

    Args:
        setting: the one asked about.
        settings: all of the study.
        training: what they change.
    """
    curves = {setting.line: 0.0} if setting.interpolated else {}
    if setting.point is not None:
        curves[setting.point[0]] = setting.point[1]
    if setting.name == PLAIN:
        others = {other.point[0] for other in settings if other.way is Way.PLAIN and other.point is not None}
        curves |= {
            title: 1 / getattr(training, option) for option, title in _LOWER_IS_WEAKER.items() if title in others
        }
    return curves

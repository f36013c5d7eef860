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
from .records import PLAIN

SET_BY_THE_STUDY = frozenset({"output_dir", "seed", "save_strategy", "disable_tqdm"})
"""Arguments that the study gives to each run itself."""
_FORM = "'plain', 'fisher:loss:10,30,100' or 'plain:learning_rate=1e-4'"


@dataclass(frozen=True)
class Setting:
    """One way to fine-tune.

    Attributes:
        name: of its runs in the report.
        method: whose importance the penalty has; None where there is no penalty.
        overrides: arguments of `EWCConfig` by name, in place of the study's.
    """

    name: str
    method: Method | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


def parse_settings(specs: Sequence[str]) -> list[Setting]:
    """Read settings, of which each of several values makes one; `plain` is added where it is missing.

        plain                                       plain fine-tuning
        plain:learning_rate=1e-4,2e-4               any option of EWCConfig
        fisher:loss:10,30,100                       METHOD:COUPLING:LAMBDAS
        fisher:loss:30:ewc_stabilized=false         and any other option

    Raises:
        ValueError: a setting of another form, an unknown method, coupling or option, a value of another type, a
            strength that is no positive number, or a setting that comes twice.
    """
    settings = [Setting(PLAIN)]
    for spec in specs:
        if spec != PLAIN:
            try:
                settings += _parse(spec)
            except (ValueError, ArgumentTypeError) as error:
                raise ValueError(f"expected settings like {_FORM}, got '{spec}' ({error})") from error
    names = [setting.name for setting in settings]
    if len(set(names)) < len(names):
        raise ValueError(f"expected each setting once, got {names}; leave the repeated ones out")
    return settings


def _parse(spec: str) -> list[Setting]:
    method, *parts = spec.split(":")
    given = [part.partition("=")[::2] for part in parts if "=" in part]
    varied = [[(option, text) for text in values.split(",")] for option, values in given]
    penalty = [part for part in parts if "=" not in part]
    importance, fixed = None, {}
    if method == PLAIN:
        if penalty or not varied or any(option.startswith("ewc_") for option, _ in given):
            raise ValueError(f"'{PLAIN}' takes options of the training, such as learning_rate=1e-4, and nothing else")
    else:
        importance = Method(method)
        if importance is Method.SYNAPTIC:
            raise ValueError("'synaptic' accrues while the old text is learned, which a study does not do")
        coupling, strengths = penalty
        if {"ewc_coupling", "ewc_lambda"} & {option for option, _ in given}:
            raise ValueError("coupling and lambda are given already")
        fixed = {"ewc_coupling": Coupling(coupling).value}
        varied.insert(0, [("ewc_lambda", text) for text in strengths.split(",")])
    settings = []
    for chosen in itertools.product(*varied):
        overrides = {**fixed, **{option: _read(option, text) for option, text in chosen}}
        names = [method, *fixed.values()]
        names += [f"{float(text):.12g}" if option == "ewc_lambda" else f"{option}={text}" for option, text in chosen]
        if fixed and not 0 < overrides["ewc_lambda"] < math.inf:
            raise ValueError("strengths are finite and greater than 0")
        settings.append(Setting("-".join(names), importance, overrides))
    return settings


def _read(option: str, text: str) -> Any:
    """Return the value of an option as the command line would read it."""
    actions = _options()
    if option not in actions:
        raise ValueError(f"'{option}' is no option of EWCConfig that a setting may change")
    read = actions[option].type
    return read(text) if callable(read) else text


@cache
def _options() -> dict[str, Action]:
    """Return how the command line reads each option; of `--x` and `--no_x` the former, which takes a value."""
    actions = reversed(HfArgumentParser([EWCConfig])._actions)
    return {action.dest: action for action in actions if action.dest not in {"help", *SET_BY_THE_STUDY}}

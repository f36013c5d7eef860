"""Settings as they are written on a command line."""

from __future__ import annotations

import itertools
import math
from argparse import Action, ArgumentTypeError
from collections.abc import Collection, Container, Sequence
from functools import cache
from typing import Any

from transformers import HfArgumentParser

from ..config import EWCConfig
from ..importance import Method
from ..penalty import Coupling
from .protocol import SET_BY_THE_STUDY, Measurement
from .records import PLAIN
from .settings import IMPORTANCE_FROM, INTERPOLATED, LORA_RANK, MAX_FORGETTING, NO_PULL, OWN, Setting
from .ways import Way

_FORM = "'plain', 'fisher:loss:10,30,100', 'rehearsal:1,3' or 'plain:learning_rate=1e-4'"


def parse_settings(specs: Sequence[str]) -> list[Setting]:
    """Read settings, of which each of several values makes one; `plain` is added where it is missing.

        plain                                       plain fine-tuning
        plain:learning_rate=1e-4,2e-4               any option of EWCConfig
        fisher:loss:10,30,100                       METHOD:COUPLING:LAMBDAS
        fisher:loss:30:ewc_stabilized=false         and any other option
        fisher:loss:30:importance_from=own          estimated on text that the old model wrote
        fisher:decoupled:10:rehearsal_weight=1,3    beside self-rehearsal
        rehearsal:1,3:rehearsal_top_k=8             WAY:WEIGHTS, also old_answers and lwf
        replay:0.125,0.25                           WAY:SHARES, also self_replay
        lora:8:learning_rate=1e-3,2e-3              a rank
        rehearsal:1:lora_rank=8                     adapters of a rank, so protected; any penalty too
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
            takes = "one list of strengths, and options" if way.takes_strengths else "options"
            raise ValueError(f"'{head}' takes {takes} of the training, such as learning_rate=1e-4, and nothing else")
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
        values: dict[str, Any] = {
            option: float(text) if option == "strength" else _read(option, text) for option, text in chosen
        }
        names = [head, *fixed.values()]
        names += [f"{float(text):.12g}" if option == name else f"{option}={text}" for option, text in chosen]
        if strengths and not 0 < values[name] < math.inf:
            raise ValueError("strengths are finite and greater than 0")
        if not 0 < values.get(MAX_FORGETTING, 1) < math.inf:
            raise ValueError("a budget is finite and greater than 0")
        rows = {option: values.pop(option) for option in list(values) if option in _rows_options()}
        acting = _acting(way, values)
        if idle := [option for option, _ in given if option.startswith("rehearsal_") and option not in acting]:
            raise ValueError(f"{', '.join(idle)} would change nothing here, or is given already")
        rank = values.pop(LORA_RANK, None)
        if rank is not None and (way not in (Way.PENALTY, Way.REHEARSAL) or rank < 1):
            raise ValueError(f"{LORA_RANK} is at least 1, beside a penalty or rehearsal; LoRA alone is lora:RANK")
        if rank is not None and fixed.get("ewc_coupling") == Coupling.DECOUPLED:
            raise ValueError(NO_PULL)
        own = values.pop(IMPORTANCE_FROM, None)
        if own is not None and (way is not Way.PENALTY or method is Method.L2 or own != OWN):
            raise ValueError(f"{IMPORTANCE_FROM} is '{OWN}', beside a penalty whose importance reads text")
        strength = values.pop("strength", None)
        if way is Way.LORA and not strength.is_integer():
            raise ValueError("a rank is a whole number")
        if way in (Way.REPLAY, Way.SELF_REPLAY) and strength >= 1:
            raise ValueError("a share is less than 1, since the task is learned too")
        changes = {**fixed, **values}
        settings.append(
            Setting("-".join(names), way, method, strength, changes, rows, rank, own is not None, interpolated)
        )
    return settings


def _acting(way: Way, options: Container[str]) -> Collection[str]:
    """Return the options of rehearsal that act in a way to fine-tune."""
    rows = _rows_options().keys()
    if way is Way.REHEARSAL:
        return rows | {"rehearsal_rows"}
    if way is Way.PENALTY and "rehearsal_weight" in options:
        return rows | {"rehearsal_rows", "rehearsal_weight"}
    of_own_text = {"rehearsal_tokens", "rehearsal_temperature"}
    if way is Way.OLD_ANSWERS:
        return rows - of_own_text | {"rehearsal_rows"}
    return of_own_text | {"rehearsal_num_rows"} if way is Way.SELF_REPLAY else ()


def _read(option: str, text: str) -> Any:
    """Return the value of an option as the command line would read it."""
    if option in (LORA_RANK, IMPORTANCE_FROM):
        return int(text) if option == LORA_RANK else text
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

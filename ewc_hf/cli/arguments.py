"""Command-line arguments of dataclasses, with defaults from a YAML file."""

from __future__ import annotations

import argparse
import inspect
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser


def parse_arguments(*dataclass_types: type, argv: list[str] | None = None, description: str | None = None) -> Any:
    """Return one instance of each dataclass; `--config FILE.yaml` gives defaults, the command line wins.

    The help lists the options of each class together, and those that are inherited from a library last.

    Args:
        dataclass_types: as `HfArgumentParser` takes them.
        argv: the words of the command line; by default the process's own.
        description: what the help says first.

    Raises:
        ValueError: the YAML file cannot be read, is no mapping or has a key that is no argument.
        SystemExit: a word that is no argument or cannot be converted, or one that is missing; the code is 2.
    """
    parser = _Parser(dataclass_types, description=description, formatter_class=_Help, usage="%(prog)s [options]")
    parser.add_argument("--config", metavar="FILE.yaml", help="YAML file with defaults for any of these arguments.")
    _group(parser, dataclass_types)
    words = sys.argv[1:] if argv is None else argv
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    if unknown := [option for option in options if option not in parser._option_string_actions]:
        parser.error(f"unknown options {unknown}{_nearest(unknown, parser._option_string_actions)}")
    chosen, _ = _only_config().parse_known_args(words)
    if chosen.config is not None:
        _set_defaults(parser, Path(chosen.config))
    _, unread = parser.parse_known_args(words)
    if unread:
        parser.error(f"expected an option before each value, got {unread} without one")
    instances = parser.parse_args_into_dataclasses(words, look_for_args_file=False)
    return tuple(instances[: len(dataclass_types)])


def beside(model: str, output_dir: str | None) -> Path:
    """Return where something of a model is stored: a folder that was named, or else the model's own.

    Args:
        model: a folder or a Hub id.
        output_dir: None where no folder was named.

    Raises:
        ValueError: none was named, and the model is from the Hub.
    """
    if output_dir is None and not Path(model).is_dir():
        raise ValueError(f"expected output_dir beside a model from the Hub, '{model}', got None; name a folder")
    return Path(model if output_dir is None else output_dir)


def require_effective(args: Any, names: Sequence[str], need: str) -> None:
    """Check that none of the options is given that would have no effect.

    Args:
        args: a dataclass, as it was parsed.
        names: of these options.
        need: what they act on.

    Raises:
        ValueError: one is not its default.
    """
    values = {option.name: (getattr(args, option.name), option.default) for option in fields(args)}
    given = {name: values[name][0] for name in names if values[name][0] != values[name][1]}
    if given:
        got = ", ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(
            f"expected {need} for {', '.join(given)}, which {'have' if len(given) > 1 else 'has'} no effect else, got "
            f"{got}; leave one of them out"
        )


def command_line() -> str:
    """Return what was typed, for a record of how something was made."""
    return f"{sys.argv[0]} {shlex.join(sys.argv[1:])}"


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Each option in one spelling, with its default where it has one."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        name = action.option_strings[0] if action.option_strings else ""
        several = " ..." if action.nargs == "+" else ""
        return name if action.nargs == 0 else f"{name} {action.metavar or _kind(action)}{several}"

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, argparse.SUPPRESS, []):
            return action.help
        defaults = action.default if isinstance(action.default, list) else [action.default]
        shown = " ".join(str(getattr(default, "value", default)).replace("%", "%%") for default in defaults)
        return f"{action.help} (default: {shown})"


def _kind(action: argparse.Action) -> str:
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    kind = getattr(action.type, "__name__", "str").replace("string_to_bool", "true|false")
    return {"str": "TEXT", "int": "N", "float": "X"}.get(kind, kind.upper())


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Tell it in one line; the usage of a hundred options would hide it."""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def _group(parser: HfArgumentParser, dataclass_types: Iterable[type]) -> None:
    """Let the help show the options of each class under what the class is about, a library's classes last."""
    owner_of: dict[str, type] = {}
    for cls in dataclass_types:
        for base in reversed(inspect.getmro(cls)):
            owner_of |= dict.fromkeys(inspect.get_annotations(base), base)
    owners = sorted(dict.fromkeys(owner_of.values()), key=lambda owner: not _is_own(owner))
    groups = {owner: parser.add_argument_group(_title(owner)) for owner in owners}
    ungrouped = parser._optionals._group_actions
    for action in [action for action in ungrouped if action.dest in owner_of]:
        ungrouped.remove(action)
        groups[owner_of[action.dest]]._group_actions.append(action)


def _is_own(owner: type) -> bool:
    return owner.__module__.split(".")[0] not in ("transformers", "trl")


def _title(owner: type) -> str:
    doc = inspect.getdoc(owner) or ""
    return (
        doc.partition("\n")[0].rstrip(".")
        if _is_own(owner)
        else f"{owner.__module__.split('.')[0]}'s {owner.__name__}"
    )


def _nearest(names: Iterable[str], known: Iterable[str]) -> str:
    near = [match for name in names for match in get_close_matches(name, list(known), n=1)]
    return f"; nearest are {near}" if near else ""


def _only_config() -> HfArgumentParser:
    parser = HfArgumentParser([], add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    return parser


def _set_defaults(parser: HfArgumentParser, path: Path) -> None:
    try:
        defaults = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"expected a YAML file, got '{path}', unreadable ({error}); check the path") from error
    if not isinstance(defaults, dict):
        raise ValueError(f"expected 'argument: value' lines in '{path}', got {type(defaults).__name__}")
    actions = {action.dest: action for action in parser._actions if action.dest not in ("help", "config")}
    if unknown := sorted(defaults.keys() - actions.keys()):
        near = _nearest(unknown, actions)
        raise ValueError(f"expected names of arguments in '{path}', got {unknown}{near}; see --help for the names")
    for name, value in defaults.items():
        action = actions[name]
        action.required = False
        # A number such as 5e-4 is a string in YAML; argparse converts such defaults by itself, but not within a list.
        if action.nargs == "+":
            values = value if isinstance(value, list) else [value]
            value = [action.type(item) if isinstance(item, str) else item for item in values]
        parser.set_defaults(**{name: value})

"""Command-line arguments of dataclasses, with defaults from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser


def parse_arguments(
    *dataclass_types: type, argv: list[str] | None = None, prog: str | None = None, description: str | None = None
) -> tuple[Any, ...]:
    """Return one instance of each dataclass; `--config FILE.yaml` gives defaults, the command line wins.

    Args:
        dataclass_types: as `HfArgumentParser` takes them.
        argv: the words of the command line; by default the process's own.
        prog: the command's name in the help.
        description: what the help says first.

    Raises:
        ValueError: the YAML file cannot be read, is no mapping or has a key that is no argument.
    """
    parser = HfArgumentParser(dataclass_types, prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--config", help="YAML file with defaults for any of these arguments.")
    chosen, _ = _only_config().parse_known_args(argv)
    if chosen.config is not None:
        _set_defaults(parser, Path(chosen.config))
    *instances, _ = parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
    return tuple(instances)


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
        raise ValueError(f"expected names of arguments in '{path}', got {unknown}; see --help for the names")
    for name, value in defaults.items():
        action = actions[name]
        action.required = False
        # A number such as 5e-4 is a string in YAML; argparse converts such defaults by itself, but not within a list.
        if action.nargs == "+":
            values = value if isinstance(value, list) else [value]
            value = [action.type(item) if isinstance(item, str) else item for item in values]
        parser.set_defaults(**{name: value})

"""The command `ewc-hf`: one subcommand a file, of which only the one that is named is imported."""

from __future__ import annotations

import sys
from importlib import import_module

_COMMANDS = ("demo", "diagnose", "evaluate", "interpolate", "perplexity", "plan", "prune", "rehearse", "sweep")


def main(argv: list[str] | None = None) -> None:
    """Run the subcommand that the first word names; a user's mistake is shown as one line.

    Args:
        argv: the words after `ewc-hf`; None takes them from the process's command line.
    """
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in _COMMANDS:
        try:
            import_module(f".{name}", __package__).main(words)
        except (ValueError, OSError) as error:
            sys.exit(f"ewc-hf {name}: {error}")
    elif name in ("-h", "--help"):
        print(f"usage: ewc-hf {{{','.join(_COMMANDS)}}} ...\n\nEach command tells its options with --help.")
    else:
        sys.exit(f"ewc-hf: expected one of {', '.join(_COMMANDS)}, got '{name}'")

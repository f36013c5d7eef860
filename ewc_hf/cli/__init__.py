"""The command `ewc-hf`: one subcommand a file."""

from __future__ import annotations

import sys

from . import demo, perplexity, plan

_COMMANDS = {"demo": demo.main, "perplexity": perplexity.main, "plan": plan.main}


def main() -> None:
    """Run the subcommand that the first word names."""
    name, *argv = sys.argv[1:] or ["--help"]
    if name in _COMMANDS:
        _run(name, argv)
    elif name in ("-h", "--help"):
        print(f"usage: ewc-hf {{{','.join(_COMMANDS)}}} ...\n\nEach command tells its options with --help.")
    else:
        sys.exit(f"ewc-hf: expected one of {', '.join(_COMMANDS)}, got '{name}'")


def _run(name: str, argv: list[str]) -> None:
    """Show a user's mistake as one line, without the traceback."""
    try:
        _COMMANDS[name](argv)
    except ValueError as error:
        sys.exit(f"ewc-hf {name}: {error}")

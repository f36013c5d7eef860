"""The command `ewc-hf`: one subcommand a file, of which only the one that is named is imported."""

from __future__ import annotations

import sys
from importlib import import_module

_COMMANDS = ("demo", "perplexity", "plan")


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
        import_module(f".{name}", __package__).main(argv)
    except ValueError as error:
        sys.exit(f"ewc-hf {name}: {error}")


if __name__ == "__main__":
    main()

"""The command `ewc-hf`, the same as `python -m ewc_hf`: each word runs one script, and only that one is imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import NoReturn

from .version import __version__

_COMMANDS = {
    "demo": ("cli.demo", "tune a small model on generated text, held and not, and report what it forgets"),
    "estimate": ("recipes.estimate_importance", "estimate how important each weight is for what a model knows"),
    "rehearse": ("recipes.generate_rehearsal", "let a model write rows of text, and store its answers"),
    "finetune": ("recipes.finetune", "fine-tune a model, held to what it knew"),
    "finetune-trl": ("recipes.finetune_trl", "the same of a chat model, with TRL"),
    "tasks": ("recipes.tasks_in_a_row", "learn several tasks one after another, protected in several ways"),
    "evaluate": ("recipes.evaluate_model", "tell what a tuned model gained and lost, on texts and benchmarks"),
    "perplexity": ("cli.perplexity", "measure one model's perplexity on one text"),
    "diagnose": ("cli.diagnose", "tell in which weights a model's forgetting sits"),
    "inspect": ("cli.inspect", "draw which weights are important, and which words a model forgot"),
    "interpolate": ("cli.interpolate", "go back from a tuned model towards the old one, as far as a budget asks for"),
    "sweep": ("cli.sweep", "find the best lambda"),
    "study": ("recipes.forgetting_study", "compare protections over several seeds"),
    "prune": ("cli.prune", "set the least important weights of a model to zero"),
    "plan": ("cli.plan", "tell what memory and traffic a training run will need"),
    "push": ("cli.push", "upload an importance or rehearsal rows to the Hub"),
}
"""By name: the module, whose `main` reads `sys.argv` as every script does, and what it does."""
_GOING_ON = {
    **dict.fromkeys(("demo", "study", "sweep", "tasks"), "; finished runs are kept, and the same command goes on"),
    **dict.fromkeys(("estimate", "rehearse", "finetune", "finetune-trl"), "; --resume true goes on with what is kept"),
}
"""What an interrupted command says besides, where it can go on."""
_USAGE = """usage: ewc-hf COMMAND ...

Fine-tune a language model without it forgetting what it knew.

{commands}

Each command tells its options with --help. A mistake is told in one line; --debug shows where it was found. On several
GPUs: accelerate launch -m ewc_hf COMMAND ...; what is for one process needs CUDA_VISIBLE_DEVICES=0 there."""


def main(argv: list[str] | None = None) -> None:
    """Run the command that the first word names.

    A user's mistake is one line and the exit code 2, an interrupt one line and the exit code 130.

    Args:
        argv: the words after `ewc-hf`; None takes them from the process's command line.
    """
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        lines = (f"  {command:<14}{does}" for command, (_, does) in _COMMANDS.items())
        print(_USAGE.format(commands="\n".join(lines)))
    elif name == "--version":
        print(f"ewc_hf {__version__}")
    elif name in _COMMANDS:
        own = [at for at, word in enumerate(words) if word == "--debug" and not _has_value(words, at)]
        with _called(f"ewc-hf {name}", [word for at, word in enumerate(words) if at not in own]):
            _run(name, is_debugged=bool(own))
    else:
        near = get_close_matches(name, _COMMANDS, n=1)
        _stop("ewc-hf", f"expected a command, got '{name}'; {f'meant {near[0]}?' if near else 'see ewc-hf --help'}")


def _has_value(words: list[str], at: int) -> bool:
    """Tell whether a value follows an option, as that of `TrainingArguments` which is called `--debug` too has one."""
    return at + 1 < len(words) and not words[at + 1].startswith("--")


@contextmanager
def _called(name: str, words: list[str]) -> Iterator[None]:
    """Let `sys.argv` be that of a script of this name."""
    own, sys.argv = sys.argv, [name, *words]
    try:
        yield
    finally:
        sys.argv = own


def _run(name: str, is_debugged: bool) -> None:
    module, _ = _COMMANDS[name]
    try:
        import_module(f"{__package__}.{module}").main()
    except (ValueError, OSError, ImportError) as error:
        if is_debugged:
            raise
        _stop(f"ewc-hf {name}", str(error))
    except KeyboardInterrupt:
        if is_debugged:
            raise
        _stop(f"ewc-hf {name}", f"interrupted{_GOING_ON.get(name, '')}", 130)


class _Stopped(SystemExit):
    """The end of a command that told why, in a line; the line is there for whoever catches it."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.code = code


def _stop(command: str, message: str, code: int = 2) -> NoReturn:
    line = f"{command}: {' '.join(message.split())}"
    print(line, file=sys.stderr)
    raise _Stopped(line, code)


if __name__ == "__main__":
    main()

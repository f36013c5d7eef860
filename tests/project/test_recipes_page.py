"""What the recipes' page shows: its code runs, its commands parse, its messages and its links are there."""

import re
import shlex
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from tiny import SENTENCES, save_tiny_checkpoint, tiny_gpt2, tiny_tokenizer
from trl import DPOConfig, DPOTrainer

import ewc_hf
from ewc_hf.__main__ import _COMMANDS
from ewc_hf.cli import parse_arguments

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "recipes").rglob("README.md"))]
PAGE = (ROOT / "recipes/README.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^\| `(\w[^`]+)` \|", PAGE.partition("## When something is")[2], re.M)
ROWS = [{"input_ids": [1 + i % 5, 2, 3, 4], "labels": [1 + i % 5, 2, 3, 4]} for i in range(16)]


def blocks(language, text):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


class Read(Exception):
    """The command line was read, and nothing more is done."""


def commands():
    """Each command line of a shell block that calls a command or a recipe, its lines joined."""
    for page in PAGES:
        for block in blocks("sh", page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                called = re.search(r"(?:recipes/(\w+)\.py|(?:-m ewc_hf|(?:^|/)ewc-hf)(?: ([\w-]+))?)(.*)", line)
                if called and "benchmarks/" not in line and not re.match(r"\w+=", line):
                    yield pytest.param(*called.groups(), id=f"{page.parent.name}: {line.strip()[:60]}")


def test_there_are_commands_and_messages():
    assert len(list(commands())) > 20 and len(MESSAGES) > 8


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")  # TRL's
@pytest.mark.parametrize(("recipe", "command", "rest"), list(dict.fromkeys(commands())))
def test_each_command_is_understood(recipe, command, rest, monkeypatch):
    module = import_module(f"ewc_hf.recipes.{recipe}" if recipe else f"ewc_hf.{_COMMANDS[command][0]}")

    def read(*types, **options):
        parse_arguments(*types, **options)
        raise Read

    words = shlex.split(rest.partition(" #")[0].partition(";")[0], posix=True)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(module, "parse_arguments", read)
    monkeypatch.setattr(sys, "argv", ["command", *words, *(["--use_cpu", "true"] if "--max_steps" in words else [])])
    with pytest.raises(Read):
        module.main()


@pytest.mark.filterwarnings("ignore:'pin_memory' argument", "ignore:`is_gradient_checkpointing`")
def test_its_code_runs(tmp_path, monkeypatch):
    """In their order and with one set of names, but for what needs the Hub or a search of twenty runs."""
    monkeypatch.chdir(tmp_path)
    save_tiny_checkpoint(tmp_path / "gpt2", context=128)
    names = {name: getattr(ewc_hf, name) for name in ewc_hf.__all__} | {
        "model": tiny_gpt2(context=128), "tokenizer": tiny_tokenizer(), "blocks_of_old_text": ROWS, "blocks": ROWS,
        "dataclass": dataclass, "DPOConfig": DPOConfig, "DPOTrainer": DPOTrainer, "texts": list(SENTENCES),
        "blocks_of_dialogs": ROWS, "blocks_of_dialogs_held_out": ROWS[:4],
    }  # fmt: skip
    ran = 0
    for block in blocks("python", PAGE):
        if "push_to_hub" in block or "hyperparameter_search" in block or "EWCSFTTrainer" in block:
            continue  # tests/project/test_hub.py, tests/study/test_search.py and tests/trl_bridge run these
        small = block.replace(
            "generate_rehearsal(model, tokenizer)", "generate_rehearsal(model, tokenizer, num_rows=4)"
        )
        exec(small, names)
        ran += 1
    assert ran >= 3


@pytest.mark.parametrize("message", MESSAGES)
def test_each_message_is_one_of_the_package(message):
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "ewc_hf").rglob("*.py"))
    assert any(message in source for source in sources)


def anchors(page):
    """What links within a page may point to, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8").replace("\n", " ")):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), target
            if anchor:
                assert anchor in anchors(file.read_text(encoding="utf-8")), target

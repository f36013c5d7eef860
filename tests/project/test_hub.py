"""Consolidations, rehearsal rows and model cards on the Hub: a user's program against a stand-in of its interface."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_stand_in import TOKEN, serving

from ewc_hf.storage import hub_source

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    with serving() as (hub, url):
        environment = {
            **os.environ, "HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HOME": str(folder / "home"),
            "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(TESTS.parent),
        }  # fmt: skip
        command = [sys.executable, str(TESTS / "hub_session.py"), str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-6000:]
        assert "commit a data file" not in done.stderr, "rows belong to their model: no warning"
        offline = {**environment, "HF_HUB_OFFLINE": "1"}
        code = "from ewc_hf import Consolidation; print(len(Consolidation.from_pretrained('someone/old').importance))"
        again = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, timeout=100)
        assert again.returncode == 0, again.stderr[-3000:]
        yield hub, json.loads((folder / "told.json").read_text()), again.stdout


def files(hub, repo):
    return hub.resolved(repo, "main")[1]


def test_what_lies_beside_the_old_model_refers_to_its_commit(session):
    hub, told, _ = session
    commits = list(hub.repos["someone/old"]["commits"])
    config = json.loads(files(hub, "someone/old")["ewc_config.json"])
    assert config["anchor"]["source"] == "someone/old" and config["anchor"]["revision"] in commits
    assert told["url"].split("/")[-1] in commits
    assert not any(name.startswith("ewc_anchor") for name in files(hub, "someone/old"))
    assert "with/anchor/ewc_anchor.safetensors" in files(hub, "someone/old")
    beside, in_folder, alone = told["anchors"]
    assert beside["revision"] == config["anchor"]["revision"]
    assert in_folder["source"] == "someone/old/with/anchor"
    assert alone["source"] == "someone/alone"
    assert in_folder["revision"] in commits and alone["revision"] in hub.repos["someone/alone"]["commits"]


def test_the_command_pushes_what_is_in_the_folder(session):
    hub, _, _ = session
    pushed = files(hub, "someone/both")
    assert {
        f"old/{name}" for name in ("ewc_config.json", "ewc_anchor.safetensors", "rehearsal.parquet")
    } <= pushed.keys()


def test_a_plan_is_of_a_revision(session):
    assert session[1]["planned"] == 2


def test_rows_and_private_repositories(session):
    hub, told, _ = session
    assert {"rehearsal.parquet", "rehearsal_config.json"} <= files(hub, "someone/old").keys()
    assert hub.private == {"someone/alone"}
    assert "expected a folder or a Hub id that can be reached, got 'someone/alone'" in told["wrong token"]
    assert "expected a repository that can be written, got 'someone/alone'" in told["no write"]
    assert "and a Hub id as anchor_source, got '" in told["a folder as anchor"]


def test_the_card_tells_what_held_the_model(session):
    hub, told, _ = session
    pushed = files(hub, "someone/tuned")
    assert "forgetting.png" in pushed and pushed["forgetting.png"].startswith(b"\x89PNG")
    card = pushed["README.md"].decode()
    section = card.partition("## What it knew before")[2]
    assert card.startswith("---\n") and section
    assert "lambda 3, coupling `decoupled`" in section and "fisher, 8 examples, " in section
    assert "weight 1, 1 rows a micro-batch, of 4 rows of 9 tokens of old text" in section
    (commit,) = {json.loads(files(hub, "someone/old")["ewc_config.json"])["anchor"]["revision"]}
    assert f"`someone/old` at {commit}" in section
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()]
    assert ["loss of the task", *told["eval_loss"]] in cells
    assert ["perplexity of books", *told["eval_books_perplexity"]] in cells
    assert "![Held-out loss over the steps of the training](forgetting.png)" in section


def test_what_was_downloaded_is_read_offline(session):
    assert int(session[2]) > 10


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("gpt2", ("gpt2", None, "")),
        ("someone/old", ("someone/old", None, "")),
        ("someone/old@v1.0", ("someone/old", "v1.0", "")),
        ("someone/old/a/b", ("someone/old", None, "a/b")),
        ("hf://someone/old@refs%2Fpr%2F1/a/", ("someone/old", "refs/pr/1", "a")),
    ],
)
def test_a_repository_is_written_as_in_urls_of_the_hub(written, read):
    assert hub_source(written) == read
    repo, _, _ = read
    assert hub_source(written, "other", "folder") == (repo, "other", "folder")

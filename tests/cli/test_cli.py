"""The command `ewc-hf` as a user calls it."""

import json
import sys

import pytest
from tiny import SENTENCES, tiny_gpt2, tiny_tokenizer

from ewc_hf import cli
from ewc_hf.demo import run as demo


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["ewc-hf", *words])
    cli.main()


def test_the_demo_reports_every_run_and_names_its_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "PRETRAINING_STEPS", 2)
    monkeypatch.setattr(demo, "FINETUNING_STEPS", 2)
    monkeypatch.setattr(demo, "SETTINGS", ("fisher:decoupled:10",))
    monkeypatch.setattr(demo, "NUM_EXAMPLES", 4)
    monkeypatch.setattr(demo, "HELD_OUT", 3)
    call(monkeypatch, "demo", "--output_dir", str(tmp_path))
    printed = capsys.readouterr().out
    assert "fisher-decoupled-10" in printed and "removed_at" in printed
    assert f"picture: {tmp_path / 'study' / 'report.png'}" in printed
    runs = json.loads((tmp_path / "study" / "report.json").read_text())["runs"]
    assert [run["name"] for run in runs] == ["pretrained", *["plain", "fisher-decoupled-10"] * 2]


def test_perplexity_prints_and_stores_the_result(tmp_path, monkeypatch, capsys):
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    tiny_gpt2().save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text(" ".join(SENTENCES))
    model, text, result = (str(tmp_path / name) for name in ("model", "text.txt", "result.json"))
    call(monkeypatch, "perplexity", "--model", model, "--text", text, "--output_file", result)
    stored = json.loads((tmp_path / "result.json").read_text())
    assert f"perplexity        {stored['perplexity']:.2f} per token" in capsys.readouterr().out
    assert len(stored["documents"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "expected one of demo, perplexity, plan, got 'train'"),
        (
            ["perplexity", "--model", "m", "--text", "no/such/file.txt"],
            "ewc-hf perplexity: expected at least one",
        ),
    ],
)
def test_mistakes_are_one_line(monkeypatch, words, message):
    with pytest.raises(SystemExit, match=message):
        call(monkeypatch, *words)


def test_help_names_the_commands(monkeypatch, capsys):
    call(monkeypatch, "--help")
    assert "{demo,perplexity,plan}" in capsys.readouterr().out

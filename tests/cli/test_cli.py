"""The command `ewc-hf` as a user calls it."""

import json
import sys

import pytest
import torch
from tiny import SENTENCES, tiny_gpt2, tiny_tokenizer

from ewc_hf import cli, evaluate_perplexity
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


def measured(tmp_path, monkeypatch, model, *words):
    """What the command stores of a model on a text."""
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text(" ".join(SENTENCES))
    paths = {"--model": "model", "--text": "text.txt", "--output_file": "result.json"}
    call(monkeypatch, "perplexity", *(w for key, name in paths.items() for w in (key, str(tmp_path / name))), *words)
    return json.loads((tmp_path / "result.json").read_text())


def test_perplexity_prints_and_stores_the_result(tmp_path, monkeypatch, capsys):
    stored = measured(tmp_path, monkeypatch, tiny_gpt2())
    assert f"perplexity        {stored['perplexity']:.2f} per token" in capsys.readouterr().out
    assert len(stored["documents"]) == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_checkpoint_of_half_precision_is_measured_in_float32_unless_asked(tmp_path, monkeypatch, capsys, precision):
    model = tiny_gpt2(dtype=torch.bfloat16)
    words = [] if precision == "float32" else ["--precision", precision]
    stored = measured(tmp_path, monkeypatch, model, *words)
    expected = evaluate_perplexity(
        model.to(getattr(torch, precision)), tiny_tokenizer(), [" ".join(SENTENCES)], progress=False
    )
    assert (stored["nll"], stored["precision"]) == (pytest.approx(expected.nll, rel=1e-6), precision)
    assert f"precision         {precision}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--bos_in_each_window"]], ids=["once", "in each window"])
def test_a_repeated_beginning_of_text_token_is_said(tmp_path, monkeypatch, capsys, words):
    model, repeats = tiny_gpt2(), bool(words)
    stored = measured(tmp_path, monkeypatch, model, *words)
    expected = evaluate_perplexity(
        model, tiny_tokenizer(), [" ".join(SENTENCES)], bos_in_each_window=repeats, progress=False
    )
    assert (stored["nll"], stored["bos_in_each_window"]) == (pytest.approx(expected.nll, rel=1e-6), repeats)
    assert ("begins with the beginning-of-text token" in capsys.readouterr().out) is repeats


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["train"],
            "expected one of demo, diagnose, evaluate, interpolate, perplexity, .*, rehearse, sweep, got 'train'",
        ),
        (
            ["perplexity", "--model", "m", "--text", "no/such/file.txt"],
            "ewc-hf perplexity: expected a file, .*, got .no.such.file.txt., which does not exist",
        ),
    ],
)
def test_mistakes_are_one_line(monkeypatch, words, message):
    with pytest.raises(SystemExit, match=message):
        call(monkeypatch, *words)


def test_a_model_that_is_nowhere_is_one_line_too(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("Some text.")
    with pytest.raises(SystemExit, match=r"ewc-hf perplexity: .*no_such_folder"):
        call(monkeypatch, "perplexity", "--model", "./no_such_folder", "--text", str(tmp_path / "text.txt"))


def test_help_names_the_commands(monkeypatch, capsys):
    call(monkeypatch, "--help")
    assert "{demo,diagnose,evaluate,interpolate,perplexity,plan,prune,rehearse,sweep}" in capsys.readouterr().out

"""The command `ewc-hf` as a user calls it."""

import json
import subprocess
import sys

import pytest
import torch
from tiny import SENTENCES, tiny_gpt2, tiny_tokenizer

import ewc_hf
from ewc_hf import evaluate_perplexity
from ewc_hf.__main__ import _COMMANDS, main
from ewc_hf.demo import run as demo

COMMANDS = tuple(_COMMANDS)


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["ewc-hf", *words])
    main()


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


def rows(capsys):
    """The cells of what was printed."""
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in capsys.readouterr().out.splitlines()]


def test_perplexity_prints_and_stores_the_result(tmp_path, monkeypatch, capsys):
    stored = measured(tmp_path, monkeypatch, tiny_gpt2())
    assert ["perplexity per token", f"{stored['perplexity']:.2f}"] in rows(capsys)
    assert len(stored["documents"]) == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_checkpoint_of_half_precision_is_measured_in_float32_unless_asked(tmp_path, monkeypatch, capsys, precision):
    model = tiny_gpt2(dtype=torch.bfloat16)
    words = [] if precision == "float32" else ["--dtype", precision]
    stored = measured(tmp_path, monkeypatch, model, *words)
    expected = evaluate_perplexity(
        model.to(getattr(torch, precision)), tiny_tokenizer(), [" ".join(SENTENCES)], progress=False
    )
    assert (stored["nll"], stored["precision"]) == (pytest.approx(expected.nll, rel=1e-6), precision)
    assert ["precision", precision] in rows(capsys)


@pytest.mark.parametrize("words", [[], ["--bos_in_each_window"]], ids=["once", "in each window"])
def test_a_repeated_beginning_of_text_token_is_said(tmp_path, monkeypatch, capsys, words):
    model, repeats = tiny_gpt2(), bool(words)
    stored = measured(tmp_path, monkeypatch, model, *words)
    expected = evaluate_perplexity(
        model, tiny_tokenizer(), [" ".join(SENTENCES)], bos_in_each_window=repeats, progress=False
    )
    assert (stored["nll"], stored["bos_in_each_window"]) == (pytest.approx(expected.nll, rel=1e-6), repeats)
    assert ("begins with the beginning-of-text token" in capsys.readouterr().out) is repeats


def test_help_names_the_commands(capsys):
    main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert max(map(len, text.splitlines())) <= 120


def test_the_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"ewc_hf {ewc_hf.__version__}\n"


@pytest.mark.parametrize(("typed", "told"), [("finetun", "meant finetune?"), ("zzz", "see ewc-hf --help")])
def test_a_command_that_is_none(typed, told, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([typed])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"ewc-hf: expected a command, got '{typed}'; {told}\n"


def test_debug_shows_where_a_mistake_was_found():
    with pytest.raises(ValueError, match="which does not exist"):
        main(["perplexity", "--model", "m", "--text", "no/such/file.txt", "--debug"])


def test_the_trainers_own_option_of_that_name_is_left_to_it(monkeypatch):
    seen = []
    monkeypatch.setattr("ewc_hf.cli.demo.main", lambda: seen.append(sys.argv))
    main(["demo", "--debug", "underflow_overflow"])
    main(["demo", "--debug", "--output_dir", "out"])
    assert seen == [["ewc-hf demo", "--debug", "underflow_overflow"], ["ewc-hf demo", "--output_dir", "out"]]


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run_demo", interrupted)
    monkeypatch.setattr("ewc_hf.cli.demo.run_demo", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(["demo"])
    assert stopped.value.code == 130
    assert (
        capsys.readouterr().err == "ewc-hf demo: interrupted; finished runs are kept, and the same command goes on\n"
    )


def test_the_process_keeps_its_own_words(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["own"])
    with pytest.raises(SystemExit):
        main(["perplexity", "--model", "m", "--text", str(tmp_path / "none.txt")])
    assert sys.argv == ["own"]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "finetune-trl"])
def test_each_command_has_help_with_its_own_options_first(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: ewc-hf {name} [options]")
    own, _, library = text.partition("transformers's TrainingArguments")
    assert "--output_" in own or name in ("perplexity", "plan", "push") or "--output_dir" in library
    assert "--per_device_train_batch_size" not in own


def test_the_command_starts_at_once():
    """Under half a second of processor time, in a process of its own, and no heavy library is imported."""
    code = (
        "import sys, time; from ewc_hf.__main__ import main; main(['--help']); "
        "print(time.process_time(), sorted({'torch', 'transformers', 'scipy', 'datasets'} & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, loaded = ran.stdout.splitlines()[-1].split(" ", 1)
    assert float(seconds) < 0.5 and loaded == "[]"

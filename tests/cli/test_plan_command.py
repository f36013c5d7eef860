"""The command `ewc-hf plan` as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ewc_hf.__main__ import main

RECIPES = Path(__file__).parents[2] / "recipes" / "plan"


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["ewc-hf", "plan", *words])
    main()
    lines = capsys.readouterr().out.splitlines()
    return lines, [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]


def test_the_command_prints_a_table(monkeypatch, capsys):
    lines, (head, _, *rows) = run(monkeypatch, capsys, "--model", str(RECIPES / "llama_8b"), "--gpus", "8")
    assert lines[0].startswith("Parameters: 8,030,261,248. GPUs: 8. Precision: bf16.")
    assert [row[0] for row in rows] == ["one_gpu", "ddp", "fsdp2", "zero1", "zero2", "zero3"]
    fsdp2 = dict(zip(head, rows[2], strict=True))
    assert (fsdp2["weights"], fsdp2["AdamW"], fsdp2["importance"], fsdp2["anchor"]) == ("3.74", "7.48", "3.74", "3.74")
    assert "The penalty sends nothing" in lines[-1]


def test_the_command_takes_options(monkeypatch, capsys, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 2, "dtype": "bfloat16"}))
    _, (_, _, *rows) = run(monkeypatch, capsys, "--model", str(tmp_path))
    assert [row[0] for row in rows] == ["one_gpu"]
    _, (head, _, *rows) = run(
        monkeypatch, capsys, "--model", str(tmp_path), "--gpus", "4", "--engine", "zero2", "ddp",
        "--precision", "float32", "--ewc_state_dtype", "bfloat16", "--offload",
    )  # fmt: skip
    assert [row[0] for row in rows] == ["zero2", "ddp"]
    assert [dict(zip(head, row, strict=True))["anchor"] for row in rows] == ["0.00", "0.00"]
    with pytest.raises(SystemExit, match="dpp is not a valid Engine"):
        run(monkeypatch, capsys, "--model", str(tmp_path), "--engine", "dpp")


def test_the_command_does_not_wait_for_matplotlib():
    words = ["ewc-hf", "plan", "--model", str(RECIPES / "gpt2")]
    code = (
        f"import sys; sys.argv = {words}; from ewc_hf.__main__ import main; main(); print('matplotlib' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "False"

"""The README's example runs as it stands."""

import re
from pathlib import Path

import pytest
from tiny import save_tiny_checkpoint

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_the_example_runs_as_pasted(tmp_path, monkeypatch, datasets_cache):
    monkeypatch.chdir(tmp_path)
    save_tiny_checkpoint(tmp_path / "gpt2", context=128)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(code, names)
    assert Path("gpt2-old/ewc_config.json").is_file() and Path("gpt2-old/rehearsal.parquet").is_file()
    assert names["trainer"].state.global_step == 200
    assert {"PenaltyRecord", "RehearsalRecord"} <= names["trainer"].state.stateful_callbacks.keys()


def test_the_files_it_names_exist():
    names = set(re.findall(r"(?:recipes|\.ci)/[\w/.]+\w", README))
    assert names
    for name in names:
        assert (Path(__file__).parents[2] / name).exists(), name

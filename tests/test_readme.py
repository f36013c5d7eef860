"""The README's example runs as it stands."""

import re
from pathlib import Path

import pytest
from tiny import tiny_gpt2

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_the_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_gpt2().save_pretrained("gpt2")
    blocks = [{"input_ids": [1 + i % 5, 2, 3, 4], "labels": [1 + i % 5, 2, 3, 4]} for i in range(16)]
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {"blocks_of_old_text": blocks, "blocks_of_dialogs": blocks}
    exec(code, names)
    assert names["trainer"].state.global_step == 200
    assert "ewc_penalty" not in names["trainer"].state.log_history[-1]
    assert Path("gpt2-ewc/ewc_config.json").is_file()


def test_the_files_it_names_exist():
    names = set(re.findall(r"(?:recipes|\.ci)/[\w/.]+\w", README))
    assert names
    for name in names:
        assert (Path(__file__).parent.parent / name).exists(), name

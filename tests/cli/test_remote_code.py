"""A model that brings its own code along is loaded by every command that loads one, and only when told to."""

import json
import shlex

import pytest
from tiny import SENTENCES, save_tiny_checkpoint

from ewc_hf.__main__ import main

pytestmark = pytest.mark.usefixtures("datasets_cache")

CODE = '''"""A GPT-2 by another name."""

from transformers import GPT2Config, GPT2LMHeadModel


class OwnConfig(GPT2Config):
    """Of a model that transformers does not know."""

    model_type = "own_gpt2"


class OwnGPT2(GPT2LMHeadModel):
    """It computes as a GPT-2 does."""

    config_class = OwnConfig
'''
PAIR = "--base old --tuned tuned --retention books.txt --output_dir out"
STEPS = "--block_size 8 --max_steps 1 --report_to none --save_strategy no --use_cpu"
TASK = (
    f"--model old --retention books.txt --retention_test books.txt {STEPS} --num_examples 4 --output_dir out --seeds 0"
)
COMMANDS = {
    "estimate": "--model old --text books.txt --block_size 8 --num_examples 4 --output_dir out",
    "rehearse": "--model old --num_rows 2 --num_tokens 8 --output_dir out",
    "finetune": f"--model old --task books.txt {STEPS} --output_dir out",
    "evaluate": "--model old --text books.txt --output_dir out",
    "perplexity": "--model old --text books.txt --output_file out/perplexity.json",
    "inspect": "--base old --tuned tuned --text books.txt --output_dir out",
    "diagnose": PAIR,
    "interpolate": f"{PAIR} --task books.txt --max_forgetting 0.01",
    "prune": "--model old --sparsity 0.5 --text_test books.txt --output_dir out",
    "sweep": f"{TASK} --task books.txt --task_test books.txt --lambdas 1",
    "study": f"{TASK} --task books.txt --task_test books.txt --settings plain",
    "tasks": f"{TASK} --tasks books.txt --tasks_test books.txt --settings plain",
}


@pytest.fixture
def brought(tmp_path, monkeypatch):
    """Two models with their code, and a text, where the command is called."""
    for seed, name in enumerate(("old", "tuned")):
        save_tiny_checkpoint(tmp_path / name, seed=seed)
        path = tmp_path / name / "config.json"
        config = json.loads(path.read_text())
        config["model_type"] = "own_gpt2"
        config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnGPT2"}
        path.write_text(json.dumps(config))
        (tmp_path / name / "own.py").write_text(CODE)
    (tmp_path / "books.txt").write_text(" ".join(SENTENCES * 3))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_the_code_of_a_model_is_run_where_that_is_asked_for(command, brought, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, *shlex.split(COMMANDS[command])])
    assert stopped.value.code == 2
    assert "trust_remote_code" in capsys.readouterr().err
    assert not (brought / "out").exists()
    main([command, *shlex.split(COMMANDS[command]), "--trust_remote_code"])
    assert any((brought / "out").iterdir())


@pytest.mark.parametrize("command", ["interpolate", "prune"])
def test_a_model_that_is_written_has_its_code_beside_it(command, brought):
    words = shlex.split(COMMANDS[command])
    main([command, *words, "--trust_remote_code"])
    assert (brought / "out" / "own.py").read_text() == CODE
    main(["perplexity", *shlex.split("--model out --text books.txt --trust_remote_code")])

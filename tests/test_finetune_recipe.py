"""The recipe of fine-tuning in this process, on a tiny model."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import SENTENCES, save_tiny_checkpoint, tiny_gpt2, tiny_tokenizer

from ewc_hf.rehearsal import generate_rehearsal

RECIPE = Path(__file__).parents[1] / "recipes/finetune.py"


@pytest.fixture
def finetune(tmp_path, monkeypatch, datasets_cache):
    model = save_tiny_checkpoint(tmp_path / "model")

    def run(*options):
        words = ["--model", model, "--task", str(tmp_path / "task.jsonl"), "--output_dir", str(tmp_path / "out")]
        words += ["--use_cpu", "true", "--report_to", "none", "--save_strategy", "no", "--block_size", "16"]
        monkeypatch.setattr(sys, "argv", ["finetune.py", *words, *options])
        runpy.run_path(str(RECIPE), run_name="__main__")
        return tmp_path / "out" / "model.safetensors"

    return run


def test_rehearsal_rows_hold_the_model(finetune, tmp_path):
    """The model's own, so that it begins at no distance from them."""
    model, tokenizer = tiny_gpt2(), tiny_tokenizer()
    generate_rehearsal(model, tokenizer, num_rows=4, num_tokens=16, progress=False).save_pretrained(tmp_path / "rows")
    (tmp_path / "task.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in SENTENCES * 9))
    options = ["--max_steps", "6", "--learning_rate", "1e-2", "--lr_scheduler_type", "constant"]
    distances = []
    for held in ([], ["--rehearsal", str(tmp_path / "rows"), "--rehearsal_weight", "30"]):
        tuned = load_file(finetune(*options, *held))
        distances.append(sum((tuned[name] - p).square().sum() for name, p in model.named_parameters()).item())
    assert 0 < distances[1] < distances[0]


def test_with_max_steps_only_as_many_documents_are_tokenized_as_the_run_needs(finetune, tmp_path):
    """The last document that the seed draws is no text, which whoever tokenizes it refuses."""
    texts = [f"{number} {SENTENCES[number % 3]}" for number in range(1000)]
    last = torch.randperm(1000, generator=torch.Generator().manual_seed(5)).tolist()[-1]
    lines = [json.dumps({"text": None if number == last else text}) for number, text in enumerate(texts)]
    (tmp_path / "task.jsonl").write_text("\n".join(lines))
    options = ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2", "--seed", "5"]
    assert finetune("--max_steps", "3", *options).is_file()
    with pytest.raises(ValueError, match=f"row {last}: expected a text"):
        finetune("--num_train_epochs", "0.01", *options)

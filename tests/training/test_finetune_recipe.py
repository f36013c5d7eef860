"""The recipe of fine-tuning in this process, on a tiny model."""

import json
import math
import re

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tiny import SENTENCES, save_tiny_checkpoint, tiny_gpt2, tiny_tokenizer

from ewc_hf.data import document_texts
from ewc_hf.rehearsal import generate_rehearsal


@pytest.fixture
def finetune(tmp_path, run_recipe, datasets_cache):
    model = save_tiny_checkpoint(tmp_path / "model")

    def run(*options):
        words = ["--model", model, "--task", str(tmp_path / "task.jsonl"), "--output_dir", str(tmp_path / "out")]
        words += ["--use_cpu", "true", "--report_to", "none", "--save_strategy", "no", "--block_size", "16"]
        run_recipe("finetune.py", *words, *options)
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


def test_it_ends_with_what_was_gained_and_lost(finetune, tmp_path, capsys):
    """In numbers that the metrics have too, and in words."""
    for name, texts in (("task", SENTENCES * 9), ("held_out", SENTENCES), ("books", SENTENCES[::-1] * 2)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    held_out = ["--task_test", str(tmp_path / "held_out.jsonl"), "--retention_test", str(tmp_path / "books.jsonl")]
    finetune("--max_steps", "6", "--learning_rate", "1e-2", *held_out, "--retention_name", "books")
    metrics = json.loads((tmp_path / "out/eval_results.json").read_text())
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(metrics["eval_nll"]))
    (of_task,) = re.findall(r"\| perplexity of the task .*", (tmp_path / "out/README.md").read_text())
    assert of_task.split("|")[3].strip() == f"{metrics['eval_perplexity']:.4g}", "the card tells the same"
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("|")
    ]
    assert rows[0] == ["held-out", "before", "after", "rise"]
    task, books = rows[2:]
    assert (task[0], task[2]) == ("NLL on the task", f"{metrics['eval_nll']:.4f}")
    rise, low, high = map(float, re.findall(r"[+-][\d.]+", task[3]))
    assert float(task[2]) - float(task[1]) == pytest.approx(rise, abs=1e-4)
    assert low < rise < high
    assert (books[0], books[2]) == ("perplexity on books", f"{metrics['eval_books_perplexity']:.2f}")
    assert books[3].endswith(" nats per token")
    rise, low, high = map(float, re.findall(r"[+-][\d.]+", books[3]))
    assert rise == pytest.approx(math.log(float(books[2]) / float(books[1])), abs=1e-3)
    assert low < rise < high


def test_a_resumed_run_knows_what_was_before_it(finetune, tmp_path, capsys):
    for name, texts in (("task", SENTENCES * 9), ("books", SENTENCES[::-1] * 2)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    held_out = ["--task_test", str(tmp_path / "task.jsonl"), "--retention_test", str(tmp_path / "books.jsonl")]
    often = ["--save_strategy", "steps", "--save_steps", "2", "--learning_rate", "1e-2"]
    told, of_task = [], []
    for steps in (["--max_steps", "2"], ["--max_steps", "4", "--resume", "true"]):
        finetune(*held_out, *often, *steps)
        rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
        of_task, told = [*of_task, rows[2]], [*told, rows[3]]
    assert of_task[0][2] == of_task[1][2] and "(" in of_task[0][4]
    assert re.fullmatch(r" -\d\.\d{4} nats per token +", of_task[1][4]), "no interval, as below"
    assert told[0][2] == told[1][2], "the perplexity before both"
    assert told[0][3] != told[1][3]
    assert re.fullmatch(r" [+-]\d\.\d{4} nats per token *", told[1][4]), "no interval, since other processes read it"


def test_old_documents_are_cut(finetune, tmp_path):
    (tmp_path / "task.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in SENTENCES * 9))
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    whole.write_text(json.dumps({"text": SENTENCES[0]}))
    (beginning,) = document_texts(Dataset.from_dict({"text": SENTENCES[:1]}), None, tiny_tokenizer(), 4)
    cut.write_text(json.dumps({"text": beginning}))
    told = []
    for books, options in ((whole, ["--max_document_tokens", "4"]), (cut, []), (whole, [])):
        held_out = ["--task_test", str(tmp_path / "task.jsonl"), "--retention_test", str(books)]
        finetune("--max_steps", "1", *held_out, *options)
        told.append(json.loads((tmp_path / "out/eval_results.json").read_text())["eval_retention_loss"])
    assert told[0] == told[1] != told[2]


def test_without_retention_texts_it_tells_of_the_task_alone(finetune, tmp_path, capsys):
    (tmp_path / "task.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in SENTENCES * 9))
    finetune("--max_steps", "2", "--task_test", str(tmp_path / "task.jsonl"))
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) == 3 and rows[2].startswith("| NLL on the task |")


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

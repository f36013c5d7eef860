"""The recipes one after another in two processes, some by `accelerate launch`, on a tiny model and a little text."""

import json

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from launching import RECIPES, launch, run_recipe_together
from tiny import SENTENCES, tiny_gpt2, tiny_tokenizer


@pytest.fixture
def folder(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_gpt2().save_pretrained(tmp_path / "model")
    (tmp_path / "books.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in SENTENCES * 20))
    turns = [{"speaker": "A", "text": "a b"}, {"speaker": "B", "text": "b a"}]
    (tmp_path / "dialogs.jsonl").write_text((json.dumps({"turns": turns}) + "\n") * 40)
    return tmp_path


def test_importance_then_finetuning_then_perplexity(folder, monkeypatch, run_recipe):
    where = ["--model", "model", "--num_rows", "4", "--num_tokens", "12"]
    printed = run_recipe_together(folder, "generate_rehearsal.py", *where)
    assert printed.count("rows              4 of 12 tokens") == 1

    monkeypatch.chdir(folder)
    text = ["--text", "books.jsonl", "--block_size", "8", "--resume"]
    run_recipe("estimate_importance.py", "--model", "model", *text, "--output_dir", "of_text")
    assert (folder / "of_text" / "ewc_importance.safetensors").is_file()
    assert not (folder / "of_text" / "ewc_unfinished.safetensors").exists()
    run_recipe_together(folder, "estimate_importance.py", "--model", "model", "--rehearsal", "model")
    assert json.loads((folder / "model" / "ewc_config.json").read_text())["num_examples"] == 4

    (folder / "defaults.yaml").write_text("learning_rate: 1e-2\nmax_steps: 2\nlogging_steps: 1\nblock_size: 8\n")
    launch(
        folder, "ddp", "finetune.py", "--use_cpu", "true", "--config", "defaults.yaml", "--model", "model",
        "--consolidation", "model", "--rehearsal", "model", "--task", "dialogs.jsonl", "--task_test", "dialogs.jsonl",
        "--retention_test", "books.jsonl", "--retention_name", "books", "--learn_from", "B", "--output_dir", "out",
        "--save_steps", "1", "--max_steps", "3", "--max_forgetting", "1e-3",
    )  # fmt: skip
    log = json.loads((folder / "out" / "checkpoint-3" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "ewc_penalty" in entry] == [1, 2, 3]
    assert [entry["step"] for entry in log if "rehearsal_kl" in entry] == [1, 2, 3]
    assert "of 0.001 nats per token of forgetting" in (folder / "out" / "README.md").read_text()
    metrics = json.loads((folder / "out" / "eval_results.json").read_text())
    assert metrics["eval_books_perplexity"] > 1

    compared = ["--base", "model", "--model", "out", "--text", "books=books.jsonl"]
    printed = run_recipe_together(folder, "evaluate_model.py", *compared)
    assert printed.count("| books | ") == 1


def test_tasks_in_a_row(folder):
    texts = (*SENTENCES, "x y z")
    rows = [json.dumps({"text": text, "kind": kind}) for kind, text in zip((2, 1, 1, 2), texts, strict=True)]
    (folder / "tasks.jsonl").write_text("\n".join(rows * 10))
    launch(
        folder, "cpu", "tasks_in_a_row.py", "--use_cpu", "true", "--model", "model", "--retention", "books.jsonl",
        "--retention_test", "books.jsonl", "--retention_name", "books", "--tasks", "tasks.jsonl", "--tasks_test",
        "tasks.jsonl", "--tasks_by", "kind", "--tasks_order", "2", "1", "--settings", "plain", "rehearsal:1",
        "--seeds", "0", "--block_size", "8", "--max_steps", "2", "--rehearsal_num_rows", "8", "--max_test_documents",
        "3", "--report_to", "none", "--output_dir", "tasks",
    )  # fmt: skip
    page = (folder / "tasks" / "tasks.md").read_text()
    assert page.count("| after | books | 2     | 1     |") == 2
    assert "## plain" in page and "## rehearsal-1" in page


@pytest.mark.parametrize(
    ("name", "engine", "processes"),
    [
        ("cpu", "NO", 1),
        ("one_gpu", "NO", 1),
        ("ddp", "MULTI_GPU", 2),
        ("fsdp2", "FSDP", 2),
        ("zero2", "DEEPSPEED", 2),
        ("zero3", "DEEPSPEED", 2),
    ],
)
def test_accelerate_reads_the_launch_configs(name, engine, processes):
    """It refuses unknown keys."""
    config = load_config_from_file(str(RECIPES / "accelerate" / f"{name}.yaml"))
    assert config.distributed_type == engine
    assert config.num_processes == processes


def test_there_are_no_other_launch_configs():
    names = {path.stem for path in (RECIPES / "accelerate").glob("*.yaml")}
    assert names == {"cpu", "one_gpu", "ddp", "fsdp2", "zero2", "zero3"}

"""The recipe of TRL's trainer in this process: LoRA on chats, with a consolidation of the base model."""

import json

import pytest
from chats import CHATS, consolidation, model, tokenizer
from safetensors.torch import load_file
from tiny import SENTENCES

pytestmark = [
    pytest.mark.usefixtures("datasets_cache"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),  # TRL's own default
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),  # PEFT asks for it
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False"),  # PEFT of GPT-2
]


def test_lora_on_chats_is_held(tmp_path, run_recipe):
    model().save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    consolidation().save_pretrained(tmp_path / "model")
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in CHATS * 4))
    (tmp_path / "books.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in SENTENCES))
    (tmp_path / "defaults.yaml").write_text("max_steps: 3\nlearning_rate: 5e-2\nuse_peft: true\nlora_r: 4\n")
    sizes = []
    for ewc_lambda in ("0", "1e4"):
        words = [
            "--config", str(tmp_path / "defaults.yaml"), "--model_name_or_path", str(tmp_path / "model"),
            "--task", str(tmp_path / "chats.jsonl"), "--task_test", str(tmp_path / "chats.jsonl"),
            "--retention_test", str(tmp_path / "books.jsonl"), "--consolidation", str(tmp_path / "model"),
            "--ewc_lambda", ewc_lambda, "--assistant_only_loss", "true", "--lora_target_modules", "all-linear",
            "--output_dir", str(tmp_path / "out"), "--use_cpu", "true", "--report_to", "none", "--save_strategy", "no",
        ]  # fmt: skip
        run_recipe("finetune_trl.py", *words)
        weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
        sizes.append(sum(w.square().sum().item() for name, w in weights.items() if "lora_B" in name))
    assert 0 < sizes[1] < sizes[0] / 4
    assert "eval_retention_perplexity" in json.loads((tmp_path / "out" / "eval_results.json").read_text())

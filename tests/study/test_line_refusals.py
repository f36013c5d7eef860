"""Checkpoints that make no line: each is refused before any work, and the message says why."""

import shutil
import sys

import pytest
import torch
from old_and_tuned import save
from peft import PromptTuningConfig, get_peft_model
from stored_by_tools import WEIGHTS, configure, rewrite, save_lora, with_lm_head, without_prefix
from tiny import tiny_gpt2
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from ewc_hf.study.line_ends import open_ends

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT asks for it
BIAS = "transformer.h.1.mlp.c_fc.bias"


@pytest.fixture
def base(tmp_path):
    return save(tiny_gpt2(), tmp_path / "base")


@pytest.fixture
def tuned(tmp_path):
    return save(tiny_gpt2(seed=1), tmp_path / "tuned")


def same_as_base(base, tuned):
    shutil.copy(base / WEIGHTS, tuned / WEIGHTS)


def same_in_bfloat16(base, tuned):
    for folder in (base, tuned):
        save(tiny_gpt2(dtype=torch.bfloat16), folder)
    save(tiny_gpt2(dtype=torch.bfloat16).float(), tuned)


def llama(base, tuned):
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, vocab_size=300
    )
    LlamaForCausalLM(config).save_pretrained(tuned)


def deeper(base, tuned):
    model = tiny_gpt2()
    model.config.n_layer = 3
    type(model)(model.config).save_pretrained(tuned)


def not_a_number(folder, value, prefix=True):
    def change(tensors):
        tensors[BIAS][2] = value
        return tensors if prefix else without_prefix(tensors)

    rewrite(folder, change)


def untied_base(base, tuned):
    def change(tensors):
        with_lm_head(tensors)
        tensors["lm_head.weight"] += 1

    rewrite(base, change)


def adapter_as_base(base, tuned):
    save_lora(base, tuned)
    shutil.copytree(tuned, base, dirs_exist_ok=True)


def prompt(base, tuned):
    shutil.rmtree(tuned)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tuned)


def of_another_base(base, tuned):
    deeper(base, base)
    save_lora(base, tuned)
    save(tiny_gpt2(), base)


def adapter_too_small(base, tuned):
    save_lora(base, tuned)
    deeper(base, base)


def pickled_adapter(base, tuned):
    save_lora(base, tuned)
    (tuned / "adapter_model.safetensors").unlink()


def without_tokenizer(base, tuned):
    for folder in (base, tuned):
        for path in folder.glob("tokenizer*"):
            path.unlink()


def drop(name):
    return lambda base, tuned: rewrite(tuned, lambda tensors: {n: t for n, t in tensors.items() if n != name})


BAD = {
    "the same folder's weights": (
        same_as_base,
        "expected a tuned model, got one with the base's weights; there",
    ),
    "the same in another dtype": (same_in_bfloat16, "expected a tuned model, got one with the base's weights"),
    "another architecture": (llama, "of one architecture, got GPT2LMHeadModel in '.*base' and LlamaForCausalLM in"),
    "another depth": (deeper, "got 'transformer.h.2.ln_1.weight' in tuned and not in base; a line joins two checkp"),
    "another width": (
        lambda base, tuned: save(tiny_gpt2(context=8), tuned),
        r"shape of 'transformer.wpe.weight' in base and tuned, got \(16, 16\) and \(8, 16\)",
    ),
    "untied base": (untied_base, "got 'lm_head.weight' in base and not in tuned; a line joins two checkpoints"),
    "NaN": (lambda base, tuned: not_a_number(tuned, torch.nan), f"weights in '.*tuned', got NaN or Inf in '{BIAS}'"),
    "Inf in base": (lambda base, tuned: not_a_number(base, -torch.inf), f"in '.*base', got NaN or Inf in '{BIAS}'"),
    "NaN under other names": (
        lambda base, tuned: not_a_number(tuned, torch.nan, prefix=False),
        f"expected finite weights in '.*tuned', got NaN or Inf in '{BIAS}'; take one from before",
    ),
    "missing tensor": (drop(BIAS), rf"in '.*tuned', got none for '{BIAS}' \(1 are missing\); save the whole model"),
    "configuration of another shape": (
        lambda base, tuned: configure(tuned, n_positions=32),
        r"expected 'transformer.wpe.weight' of the shape \(32, 16\) that .*, got \(16, 16\); save configuration and",
    ),
    "no safetensors": (lambda base, tuned: (tuned / WEIGHTS).unlink(), "checkpoint in safetensors in '.*tuned', got"),
    "truncated": (
        lambda base, tuned: (tuned / WEIGHTS).write_bytes((tuned / WEIGHTS).read_bytes()[:-9]),
        "expected a checkpoint in safetensors in '.*tuned', got SafetensorError.*copy it again",
    ),
    "no config": (lambda base, tuned: (base / "config.json").unlink(), "the file 'config.json' in '.*base', got no"),
    "quantized": (
        lambda base, tuned: configure(tuned, quantization_config={"quant_method": "gptq", "bits": 4}),
        "expected weights in floating point, got a quantized model in '.*tuned'; dequantize it first",
    ),
    "no folder": (lambda base, tuned: shutil.rmtree(tuned), "expected a folder or a Hub id that can be reached, got"),
    "no tokenizer": (without_tokenizer, "expected a tokenizer in '.*tuned' or '.*base', got none; save it beside one"),
    "adapter as base": (
        adapter_as_base,
        "expected a whole model as base, got the adapter '.*base'; merge it",
    ),
    "adapter that cannot be merged": (prompt, "can be merged into the weights, as LoRA's can, got PROMPT_TUNING in"),
    "adapter of a deeper model": (
        of_another_base,
        "got one in '.*tuned' that does not fit .*; pass as base",
    ),
    "adapter of a smaller model": (
        adapter_too_small,
        "got one in '.*tuned' that does not fit .*; pass as base",
    ),
    "adapter in a pickle": (
        pickled_adapter,
        "expected the file 'adapter_model.safetensors' in '.*tuned', got",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BAD.values(), ids=BAD)
def test_what_makes_no_line_is_refused(tmp_path, base, tuned, monkeypatch, damage, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    damage(base, tuned)
    with pytest.raises(ValueError, match=message):
        open_ends(base, tuned, tmp_path / "scratch")


def test_without_peft_an_adapter_says_how_to_get_it(tmp_path, base, monkeypatch):
    save_lora(base, tmp_path / "lora")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"expected PEFT for the adapter in '.*lora', got .*; pip install peft"):
        open_ends(base, tmp_path / "lora", tmp_path / "scratch")

"""Checkpoints of a tiny model, as several tools would write them, and an adapter."""

import json

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

WEIGHTS = "model.safetensors"


def rewrite(folder, change):
    """Change a checkpoint's tensors."""
    tensors = load_file(folder / WEIGHTS)
    save_file(change(tensors) or tensors, folder / WEIGHTS, metadata={"format": "pt"})


def configure(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def with_lm_head(tensors):
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()


def without_prefix(tensors):
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


def save_lora(base, folder, **options):
    """An adapter that changes something, and the model that it makes."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False, **options)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    adapted.save_pretrained(folder)
    return adapted.merge_and_unload()

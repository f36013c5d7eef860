"""LoRA on quantized bases (bitsandbytes): held by an importance that was estimated before they were quantized."""

import logging

import pytest
import torch
from conftest import VOCAB
from small_runs import arguments

pytest.importorskip("bitsandbytes")

from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from ewc_hf import EWCTrainer, estimate_importance

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT asks for it

BLOCKS = [{"input_ids": t, "labels": t} for t in torch.arange(160).remainder(VOCAB).view(20, 8)]
IN_FOUR_BITS = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    in_bfloat16 = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    estimate_importance(in_bfloat16, BLOCKS, num_examples=8, progress=False).save_pretrained(folder)
    return folder


def adapted_and_quantized(folder, how):
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=BitsAndBytesConfig(**how), device_map="cpu", dtype=torch.float32
    )
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))


@pytest.mark.parametrize("how", [IN_FOUR_BITS, {"load_in_8bit": True}], ids=["4 bits", "8 bits"])
def test_the_change_of_a_quantized_base_is_held(tmp_path, checkpoint, caplog, how):
    importance = estimate_importance(
        AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16), BLOCKS, num_examples=8, progress=False
    ).importance
    norms = []
    for ewc_lambda in (1e-9, 1e6):
        model = adapted_and_quantized(checkpoint, how)
        options = {"ewc_lambda": ewc_lambda, "ewc_stabilized": False, "learning_rate": 0.01}
        trainer = EWCTrainer(
            model=model,
            args=arguments(tmp_path, max_steps=6, **options),
            train_dataset=BLOCKS,
            consolidation=str(checkpoint),
        )
        with caplog.at_level(logging.WARNING):
            trainer.train()
        layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "get_delta_weight")}
        changes = {
            f"{name.removeprefix('base_model.model.')}.weight": layer.get_delta_weight("default")
            for name, layer in layers.items()
        }
        quadratic = sum((importance[name] * change.square()).sum() for name, change in changes.items())
        norms.append(quadratic.item())
    assert 0 < norms[1] < norms[0] / 10
    logged = [entry["ewc_penalty"] for entry in trainer.state.log_history if "ewc_penalty" in entry]
    assert len(changes) == 2
    assert logged[-1] == pytest.approx(1e6 / 2 * norms[1], rel=1e-4)
    assert "away from what they are held at" not in caplog.text

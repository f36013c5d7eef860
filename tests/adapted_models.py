"""Small float64 models with LoRA's adapters: a Llama, of `Linear` layers, or another, as `small_runs` has."""

import torch
from conftest import VOCAB
from peft import LoraConfig, get_peft_model
from small_runs import LR
from torch import optim
from transformers import GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ewc_hf import Coupling
from ewc_hf.engines import LocalParameters, adapted_matrices
from ewc_hf.penalty import CoupledPenalty, Diagonal, LowRank


def llama():
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16, initializer_range=0.2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).double()


def adapted(model, drawn=True, **options):
    """With adapters that have moved, unless they are as they are made."""
    is_gpt2 = isinstance(model, GPT2LMHeadModel)  # whose layers are `Conv1D`
    options = {"r": 3, "target_modules": CONV, "fan_in_fan_out": is_gpt2, **options}
    model = get_peft_model(model, LoraConfig(**options))
    model = model.double()
    if drawn:
        generator = torch.Generator().manual_seed(3)
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return model


LAMBDA, ALPHA = 5.0, 0.1
CONV, LINEAR = ["c_attn", "c_proj"], ["q_proj", "k_proj", "down_proj"]


def penalty_of(model, consolidation, coupling=Coupling.LOSS, ewc_lambda=LAMBDA, alpha=ALPHA, optimizer=None):
    parameters = LocalParameters(model, optimizer or optim.SGD(model.parameters(), lr=LR))
    terms = [Diagonal(consolidation, parameters), LowRank(consolidation, adapted_matrices(model), parameters)]
    return CoupledPenalty(terms, parameters, coupling, ewc_lambda, [alpha])

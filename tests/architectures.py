"""Tiny models of many architectures, built from their configurations, in float64."""

from contextlib import contextmanager
from unittest.mock import patch

import torch
import transformers as hf
from torch import nn

VOCAB, LENGTH = 40, 9

_SMALL = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0,
}  # fmt: skip
_GPT2 = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 32}

CAUSAL = {
    "GPT-2": (hf.GPT2Config, _GPT2),
    "GPT-Neo": (
        hf.GPTNeoConfig,
        {"hidden_size": 16, "num_layers": 2, "attention_types": [[["global", "local"], 1]], "num_heads": 2,
         "max_position_embeddings": 32, "window_size": 4},
    ),
    "GPT-NeoX": (hf.GPTNeoXConfig, _SMALL),
    "OPT": (hf.OPTConfig, {**_SMALL, "ffn_dim": 24, "word_embed_proj_dim": 16, "do_layer_norm_before": True}),
    "Bloom": (hf.BloomConfig, {"hidden_size": 16, "n_layer": 2, "n_head": 2}),
    "Llama": (hf.LlamaConfig, _SMALL),
    "Mistral": (hf.MistralConfig, {**_SMALL, "sliding_window": 4}),
    "Qwen3": (hf.Qwen3Config, {**_SMALL, "head_dim": 4}),
    "Gemma": (hf.GemmaConfig, {**_SMALL, "head_dim": 4}),
    "Phi": (hf.PhiConfig, _SMALL),
    "Mixtral": (hf.MixtralConfig, {**_SMALL, "num_local_experts": 3, "num_experts_per_tok": 2}),
    "Mamba": (hf.MambaConfig, {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}),
}  # fmt: skip
"""Decoder-only language models of transformers: configuration class and sizes."""


def causal_model(name, tied=False):
    """The weights are ten times the usual size, so that predictions depend on the context."""
    config_class, sizes = CAUSAL[name]
    config = config_class(
        vocab_size=VOCAB, initializer_range=0.2, bos_token_id=1, eos_token_id=1, tie_word_embeddings=tied, **sizes
    )
    torch.manual_seed(0)
    return perturbed(hf.AutoModelForCausalLM.from_config(config, experts_implementation="eager"))


def t5(tied=True):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    config = hf.T5Config(vocab_size=VOCAB, tie_word_embeddings=tied, decoder_start_token_id=0, pad_token_id=0, **sizes)
    torch.manual_seed(0)
    return perturbed(hf.T5ForConditionalGeneration(config))


def bert(head):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    return head(hf.BertConfig(vocab_size=40, max_position_embeddings=32, **sizes))


class MLP(nn.Module):
    """The paper's fully connected network, smaller."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(12, 8), nn.LeakyReLU(), nn.Linear(8, 7), nn.LeakyReLU(), nn.Linear(7, 5))

    def forward(self, images):
        return self.layers(images.flatten(1))


class ConvNet(nn.Module):
    """The paper's convolutional network with batch norm, smaller."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 3, 5), nn.BatchNorm2d(3), nn.LeakyReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(), nn.Flatten(), nn.Linear(16, 5),
        )  # fmt: skip

    def forward(self, images):
        return self.layers(images)


def perturbed(model):
    """Every parameter moved, in float64: norms of exactly 1 and biases of 0 would hide mistakes."""
    draws = torch.Generator().manual_seed(1)
    for p in model.double().parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=draws, dtype=p.dtype)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1, generator=draws)
            module.running_var.uniform_(0.5, 2, generator=draws)
    return model


@contextmanager
def double_stays_double():
    """Many models compute norms and routers in float32 whatever their dtype, which limits what can be compared."""
    to, wide_float = torch.Tensor.to, torch.Tensor.float

    def to_unless_narrower(tensor, *args, **kwargs):
        narrows = tensor.dtype == torch.float64 and torch.float32 in (*args, *kwargs.values())
        return tensor if narrows else to(tensor, *args, **kwargs)

    def float_unless_narrower(tensor):
        return (
            wide_float(tensor) if tensor.dtype in (torch.float16, torch.bfloat16, torch.float32) else tensor.double()
        )

    with (
        patch.object(torch.Tensor, "to", to_unless_narrower),
        patch.object(torch.Tensor, "float", float_unless_narrower),
    ):
        yield

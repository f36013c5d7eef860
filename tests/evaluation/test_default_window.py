"""How long a window may be: as long as the model's configuration says, whatever it calls that."""

import pytest
import torch
from measured_texts import letters, measure
from tiny import VOCABULARY, tiny_gpt2, tiny_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM


def tiny_llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, initializer_range=0.2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("build", [tiny_gpt2, tiny_llama])
def test_the_window_is_by_default_the_models_context_and_at_most_that(build):
    model, tokenizer, texts = build(), tiny_tokenizer(), [letters(40)]
    expected = measure(model, tokenizer, texts, window=16, stride=8)
    assert measure(model, tokenizer, texts, window=None) == expected
    with pytest.raises(ValueError, match="expected 2 <= window <= 16, the model's context, got 17"):
        measure(model, tokenizer, texts, window=17)

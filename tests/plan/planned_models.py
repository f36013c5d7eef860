"""Sizes of two small models, of which several engines were measured."""

from transformers import GPT2Config, LlamaConfig

from ewc_hf.plan import model_sizes

SIZES = {
    "tied": model_sizes(GPT2Config(vocab_size=1024, n_positions=16, n_embd=256, n_layer=6, n_head=2)),
    "untied": model_sizes(
        LlamaConfig(
            vocab_size=2048, hidden_size=256, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=False,
        )
    ),
}  # fmt: skip

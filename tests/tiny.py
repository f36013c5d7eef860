"""A byte-level tokenizer trained on three sentences, GPT-2 models of a few thousand weights: nothing is downloaded."""

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

SENTENCES = (
    "The old lighthouse keeper counted the ships and the stars.",
    "Hello there! How are you today? I am well, thank you.",
    "Snow fell on the stone bridge, and the river ran cold.",
)
EOS = "<|endoftext|>"
BOS = "<|begin|>"
VOCABULARY = 300


def tiny_tokenizer(
    eos_token: str | None = EOS,
    bos_token: str | None = None,
    *,
    sentences: Iterable[str] = SENTENCES,
    splits_words: bool = True,
) -> PreTrainedTokenizerFast:
    """It has few merges, so that most words are several tokens, and splits words as GPT-2 does, or not at all.

    With a beginning-of-text token it puts that before every text, as Llama's does. The letters j, q, x and z are in
    none of the sentences: each is a token of its own, wherever it stands.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splits_words)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[EOS, BOS],
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    if bos_token is not None:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos_token, bos_token=bos_token)


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The text's own tokens, with nothing before or after."""
    return tokenizer.encode(text, add_special_tokens=False)


def tiny_gpt2(context: int = 16, seed: int = 0, dtype: torch.dtype = torch.float32) -> GPT2LMHeadModel:
    """Weights ten times the usual size, so that predictions depend on the context."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=context,
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config).to(dtype)


def save_tiny_checkpoint(folder: Path, context: int = 16, seed: int = 0) -> str:
    """Write a model with its tokenizer; returns the folder, as `from_pretrained` takes it."""
    tiny_gpt2(context, seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)

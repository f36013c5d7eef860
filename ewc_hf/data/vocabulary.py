"""Tokens that a model knows, and who writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from .labels import IGNORED, is_encoder_decoder, transformers_model


def token_table(model: nn.Module) -> nn.Module | None:
    """Return the module that looks tokens up; None where a model is none of transformers, or has no single table."""
    known = transformers_model(model)
    try:
        return None if known is None else known.get_input_embeddings()
    except NotImplementedError:  # transformers' answer where tokens are hashed characters, as CANINE's
        return None


def require_known_tokens(model: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Check that each token has a row in the model's table of embeddings.

    An encoder-decoder looks up its labels too.

    Raises:
        ValueError: a token id is negative or past the table.
    """
    table = token_table(model)
    if "input_ids" not in inputs or not isinstance(table, nn.Embedding):
        return
    looked_up = ["input_ids", "decoder_input_ids"]
    if is_encoder_decoder(model) and "labels" in inputs and inputs["labels"].dim() > 1:
        looked_up.append("labels")
    for key in looked_up:
        if key not in inputs or inputs[key].is_floating_point():
            continue
        ids = inputs[key]
        ids = ids[ids != IGNORED] if key == "labels" else ids
        if ids.numel() and not 0 <= ids.min() <= ids.max() < table.num_embeddings:
            raise ValueError(
                f"expected '{key}' from 0 to {table.num_embeddings - 1}, the rows of the model's embeddings, got "
                f"{ids.min()} to {ids.max()}; use the model's own tokenizer, or `model.resize_token_embeddings`"
            )


def tokenizer_of(processing_class: Any) -> Any:
    """Return what writes a `Trainer`'s text as tokens: its `processing_class`, or of a processor that one's own."""
    is_tokenizer = isinstance(processing_class, PreTrainedTokenizerBase)
    return processing_class if is_tokenizer else getattr(processing_class, "tokenizer", None)

"""How many tokens a model can read at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from .labels import transformers_model

if TYPE_CHECKING:
    from transformers import Trainer as _SomeTrainer
else:
    _SomeTrainer = object


def context_length(model: nn.Module) -> int | None:
    """Return the most tokens that a sequence may have; None where no table of positions sets a limit.

    Rotary and relative positions and ALiBi are computed, not looked up: such a model runs beyond its
    `max_position_embeddings`. In a table with a row for padding, as RoBERTa's, positions begin after that row.
    """
    known = transformers_model(model)
    if known is None:
        return None
    config = known.config.get_text_config()
    positions = config.to_dict().get(config.attribute_map.get("max_position_embeddings", "max_position_embeddings"))
    if positions is None:
        return None
    limits = []
    for name, module in known.named_modules():
        if _is_of_positions(name) and isinstance(module, nn.Embedding):
            padding = module.padding_idx
            if module.num_embeddings == positions:
                limits.append(positions if padding is None else positions - padding - 1)
            elif module.num_embeddings == positions + 2 and padding is None:  # BART's begin at its third row
                limits.append(positions)
    limits += [
        positions for name, table in known.named_buffers() if _is_of_positions(name) and len(table) == positions
    ]
    return min(limits, default=None)


def sequence_length(inputs: Mapping[str, Any]) -> int:
    """Return how many tokens the sequences of an example or a batch have; 0 where it has none, or several in a row."""
    if "position_ids" in inputs:
        return 0
    return max((np.shape(inputs[key])[-1] for key in ("input_ids", "decoder_input_ids") if key in inputs), default=0)


def require_within_context(model: nn.Module, num_tokens: int) -> None:
    """Refuse sequences of so many tokens where the model has not as many positions.

    Raises:
        ValueError: they are longer than the model's context.
    """
    context = context_length(model)
    if context is not None and num_tokens > context:
        raise ValueError(
            f"expected sequences of at most {context} tokens, the model's context, got {num_tokens}; cut the text "
            f"into blocks of {context} (`block_size`) or truncate it"
        )


class ContextMixin(_SomeTrainer):
    """Refuses, in a `Trainer` class that comes after it, sequences longer than the context before they are read.

    It overrides `compute_loss`.
    """

    _longest_sequence = 0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Compute it as usual, of sequences that the model can read."""
        if (length := sequence_length(inputs)) > self._longest_sequence:
            require_within_context(model, length)
            self._longest_sequence = length
        return super().compute_loss(
            model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
        )


def _is_of_positions(name: str) -> bool:
    last = name.rpartition(".")[2]
    return "position" in last or last in ("wpe", "pos_encoding")

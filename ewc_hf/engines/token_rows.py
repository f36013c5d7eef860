"""Rows of a vocabulary that PEFT trains by themselves, in the place of those of a frozen table."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from torch import nn

from .parameters import named_parameters, unwrap


@dataclass(frozen=True)
class TokenRows:
    """Which rows of which table a trained parameter, [tokens, width], takes the place of.

    Attributes:
        table: canonical name of the frozen weight.
        tokens: the row of each of its own rows there.
    """

    table: str
    tokens: tuple[int, ...]


def trained_token_rows(model: nn.Module) -> dict[str, TokenRows]:
    """Return what `trainable_token_indices` train, by canonical name of the parameter; none without PEFT."""
    if sys.modules.get("peft") is None:
        return {}
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    names = {parameter: name for name, parameter in named_parameters(model).items()}
    rows = {}
    for layer in unwrap(model).modules():
        if isinstance(layer, TrainableTokensLayer) and layer.tied_adapter is None:
            for adapter in layer.active_adapters:
                if (trained := layer.trainable_tokens_delta[adapter]).requires_grad:
                    table = names[layer.get_base_layer().weight]
                    rows[names[trained]] = TokenRows(table, tuple(layer.token_indices[adapter]))
    return rows

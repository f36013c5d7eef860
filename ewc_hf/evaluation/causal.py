"""Can a model's perplexity be measured: does it predict each token from those before it, and how many does it see?"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data import context_length, require_known_tokens
from ..engines import device_of, unwrap

_PROBED = 8
"""Tokens that show whether a model looks ahead."""


def context_of(model: PreTrainedModel) -> float:
    """Return how many tokens a model has seen at most; infinity where its configuration names no limit.

    Rotary positions go beyond what their configuration names, but were not trained there.
    """
    inner: PreTrainedModel = unwrap(model)
    config = inner.config.get_text_config()
    name = config.attribute_map.get("max_position_embeddings", "max_position_embeddings")
    return min(config.to_dict().get(name, math.inf), context_length(inner) or math.inf)


def require_causal(model: PreTrainedModel, tokens: list[int], window: int) -> torch.dtype:
    """Return the precision of a model that was found to predict each token from those before it.

    Two short texts that begin alike tell. The precision is the coarser one of the weights' and the logits'.

    Args:
        model: in eval mode; under an engine that shards it, all processes call this.
        tokens: of which the texts are made: the lowest and the highest.
        window: tokens of a text at most.

    Raises:
        ValueError: a token is not in the model's vocabulary, or the model is an encoder-decoder, a masked language
            model or another whose logits do not predict the next token.
    """
    inner: PreTrainedModel = unwrap(model)
    require_known_tokens(inner, {"input_ids": torch.tensor(tokens)})
    lowest, highest = min(tokens), max(tokens)
    name = type(inner).__name__
    expected = "expected a causal language model, whose logits predict the next token from those before it"
    if inner.config.is_encoder_decoder or inner.loss_type == "ForMaskedLM":
        kind = "an encoder-decoder" if inner.config.is_encoder_decoder else "a masked language model"
        raise ValueError(f"{expected}, got {name}, {kind}; load the model with `AutoModelForCausalLM`")
    first, later = tokens[:1], min(window, _PROBED) - 1
    other = highest if highest > lowest else abs(lowest - 1)
    one_TV, other_TV = (_logits(model, first + [token] * later, expected) for token in (lowest, other))
    if one_TV.shape[-1] <= highest:
        raise ValueError(
            f"{expected}, got {name} with {one_TV.shape[-1]} outputs a position; load the model with "
            "`AutoModelForCausalLM`"
        )
    change_T = (one_TV - other_TV).abs().amax(-1)
    if change_T[0] > change_T.max() * math.sqrt(torch.finfo(one_TV.dtype).eps):
        raise ValueError(
            f"{expected}, got {name}, whose logits depend on later tokens; load a model that was trained as a decoder "
            "(with BERT's relatives: `is_decoder=True` in its configuration)"
        )
    dtypes = [p.dtype for p in model.parameters() if p.is_floating_point()]
    return max((one_TV.dtype, *dtypes), key=lambda dtype: torch.finfo(dtype).eps)


def _logits(model: PreTrainedModel, tokens: list[int], expected: str) -> Tensor:
    """Return the logits of one text, [T, V].

    Raises:
        ValueError: they are not one row a token.
    """
    device = device_of(next(model.parameters()))
    output = model(input_ids=torch.tensor([tokens], device=device))
    logits_BTV = output.get("logits")
    if logits_BTV is None or logits_BTV.shape[:-1] != (1, len(tokens)):
        got = "none" if logits_BTV is None else f"logits of shape {tuple(logits_BTV.shape)} for {len(tokens)} tokens"
        raise ValueError(
            f"{expected}, got {got} from {type(unwrap(model)).__name__}; load the model with `AutoModelForCausalLM`"
        )
    return logits_BTV[0]

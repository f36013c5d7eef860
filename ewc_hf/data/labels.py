"""Which label each position predicts, and its negative log-likelihood.

Shapes: B examples, T positions, V vocabulary entries or classes, N positions of all examples. A classifier has one
position an example: its logits are [B, V], its labels [B].
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

IGNORED = -100
"""The label of a position that does not count, as everywhere in transformers."""
_PIECE = 1 << 22
"""Logits that are widened to float32 at a time: 16 MiB."""
_CAUSAL_LOSSES = (None, "ForCausalLM", "ForConditionalGeneration")
"""The losses of transformers that shift labels; None is what classes such as `GPT2LMHeadModel` have."""


def predicts_next_token(model: nn.Module) -> bool:
    """Tell whether the logits of a position predict the label of the next one, as in decoder-only language models.

    Encoder-decoders, masked language models and classifiers of tokens predict the label at the same position.
    A module that neither is nor contains a model of transformers counts as a decoder-only one. This is what a class
    says of itself; `own_loss_shifts` asks its loss.
    """
    known = transformers_model(model)
    return known is None or (not is_encoder_decoder(known) and known.loss_type in _CAUSAL_LOSSES)


def is_encoder_decoder(model: nn.Module) -> bool:
    """Tell whether a model makes its decoder's inputs of its labels, whose tokens are not its `input_ids`."""
    known = transformers_model(model)
    if known is None or not known.config.is_encoder_decoder:
        return False
    return "decoder_input_ids" in inspect.signature(known.forward).parameters  # some heads have the encoder alone


def transformers_model(model: nn.Module) -> PreTrainedModel | None:
    """Return the model of transformers that a module is or contains."""
    return next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)


def next_tokens(labels_BT: Tensor) -> Tensor:
    """Return the label that each position predicts where it predicts the next one; the last predicts none."""
    return pad(labels_BT[:, 1:], (0, 1), value=IGNORED)


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Return `-log p(label)` in nats at each position, 0 where it is ignored; in at least float32.

    Logits of half precision are never all in float32 at once, neither here nor in the backward pass.
    """
    nll_N: Tensor = _TokenNLL.apply(logits.reshape(-1, logits.shape[-1]), labels.flatten())
    return nll_N.view(labels.shape)


class _TokenNLL(torch.autograd.Function):
    """Cross entropy, and its gradient `d nll / d logits = p - onehot`, a piece of n of the N positions at a time."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, labels_N: Tensor) -> Tensor:
        """Return `-log p(label)`, [N]."""
        ctx.save_for_backward(logits_NV, labels_N)
        nll_N = torch.empty_like(labels_N, dtype=_wide(logits_NV))
        for logits_nV, labels_n, into_n in _pieces(logits_NV, labels_N, nll_N):
            log_p_nV = logits_nV.log_softmax(-1, dtype=nll_N.dtype)
            log_p_n = log_p_nV.gather(1, labels_n.clamp(min=0)[:, None]).squeeze(1)
            torch.mul(-log_p_n, labels_n != IGNORED, out=into_n)
        return nll_N

    @staticmethod
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the logits, [N, V]."""
        logits_NV, labels_N = ctx.saved_tensors
        gradient_NV = torch.empty_like(logits_NV)
        for logits_nV, labels_n, gradient_n, into_nV in _pieces(logits_NV, labels_N, gradient_N, gradient_NV):
            labels_n1 = labels_n.clamp(min=0)[:, None]
            p_nV = logits_nV.softmax(-1, dtype=_wide(logits_nV))
            difference_nV = p_nV.scatter_add_(1, labels_n1, p_nV.new_full((1, 1), -1).expand_as(labels_n1))
            into_nV.copy_(difference_nV.mul_((gradient_n * (labels_n != IGNORED))[:, None]))
        return gradient_NV, None


def _pieces(logits_NV: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same few positions of each tensor."""
    positions = max(_PIECE // logits_NV.shape[1], 1)
    return zip(*(tensor.split(positions) for tensor in (logits_NV, *others)), strict=True)


def _wide(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)

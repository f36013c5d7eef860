"""Which label each position predicts, and its negative log-likelihood.

Shapes: B examples, T positions, V vocabulary entries or classes, N positions that count. A classifier has one position
an example: its logits are [B, V], its labels [B].
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

IGNORED = -100
"""The label of a position that does not count, as everywhere in transformers."""
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
    """Return `-log p(label)` in nats at each position, 0 where it is ignored; in at least float32."""
    nll_N: Tensor = _TokenNLL.apply(logits.reshape(-1, logits.shape[-1]), labels.flatten())
    return nll_N.view(labels.shape)


class _TokenNLL(torch.autograd.Function):
    """Cross entropy whose backward pass, `d nll / d logits = p - onehot`, reuses the memory of the probabilities."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, labels_N: Tensor) -> Tensor:
        """Return `-log p(label)`, [N]."""
        log_p_NV = logits_NV.log_softmax(-1, dtype=torch.promote_types(logits_NV.dtype, torch.float32))
        counts_N, labels_N1 = labels_N != IGNORED, labels_N.clamp(min=0)[:, None]
        ctx.save_for_backward(log_p_NV, labels_N1, counts_N)
        ctx.logits_dtype = logits_NV.dtype
        return -log_p_NV.gather(1, labels_N1).squeeze(1) * counts_N

    @staticmethod
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the logits, [N, V]."""
        log_p_NV, labels_N1, counts_N = ctx.saved_tensors
        difference_NV = log_p_NV.exp_().scatter_add_(1, labels_N1, log_p_NV.new_full((1, 1), -1).expand_as(labels_N1))
        return difference_NV.mul_((gradient_N * counts_N)[:, None]).to(ctx.logits_dtype), None

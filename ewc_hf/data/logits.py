"""What logits say of labels, computed a few positions at a time.

Shapes: B examples, T positions, V vocabulary entries or classes, N positions of all examples. A classifier has one
position an example: its logits are [B, V], its labels [B].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .labels import IGNORED

_PIECE = 1 << 22
"""Logits that are widened to float32 at a time: 16 MiB."""


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
        nll_N = torch.empty_like(labels_N, dtype=widened(logits_NV))
        for logits_nV, labels_n, into_n in logit_pieces(logits_NV, labels_N, nll_N):
            log_p_nV = logits_nV.log_softmax(-1, dtype=nll_N.dtype)
            log_p_n = log_p_nV.gather(1, labels_n.clamp(min=0)[:, None]).squeeze(1)
            torch.mul(-log_p_n, labels_n != IGNORED, out=into_n)
        return nll_N

    @staticmethod
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the logits, [N, V]."""
        logits_NV, labels_N = ctx.saved_tensors
        gradient_NV = torch.empty_like(logits_NV)
        for logits_nV, labels_n, gradient_n, into_nV in logit_pieces(logits_NV, labels_N, gradient_N, gradient_NV):
            labels_n1 = labels_n.clamp(min=0)[:, None]
            p_nV = logits_nV.softmax(-1, dtype=widened(logits_nV))
            difference_nV = p_nV.scatter_add_(1, labels_n1, p_nV.new_full((1, 1), -1).expand_as(labels_n1))
            into_nV.copy_(difference_nV.mul_((gradient_n * (labels_n != IGNORED))[:, None]))
        return gradient_NV, None


def logit_pieces(logits_NV: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same few positions of each tensor, n of N at a time, so that only these are ever in float32."""
    positions = max(_PIECE // logits_NV.shape[1], 1)
    return zip(*(tensor.split(positions) for tensor in (logits_NV, *others)), strict=True)


def widened(logits: Tensor) -> torch.dtype:
    """Return the type of number that logits are computed with: float32 at least."""
    return torch.promote_types(logits.dtype, torch.float32)

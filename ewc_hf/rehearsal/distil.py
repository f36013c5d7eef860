"""How far a model's answers are from remembered ones.

Shapes: N positions, n of them in a piece, V vocabulary entries, A = K + M remembered answers a position: the K
likeliest tokens and M draws from all others.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..data import logit_pieces, widened
from .answers import DRAWS, Answers


def kl_divergence(logits: Tensor, answers: Answers) -> Tensor:
    """Return an unbiased estimate of `KL(old || new)` at each position, from the remembered answers, in nats.

        KL = sum_{k <= K} p_k log(p_k / q_k) + p_rest / M * sum_m log(p_m / q_m),    q = softmax(logits)

    The first sum is over the likeliest tokens; the second over tokens that were drawn from all others, so that its
    expectation is their part of the divergence. To leave them out, or to compare `p_rest` with `q_rest` only, would
    forget how the old model divides what may be a third of its probability (Anshumann et al. 2025, arXiv 2503.16870).
    With all tokens remembered it is the divergence itself. The old probabilities are brought to the sum 1, which
    rounding takes from them.

    Args:
        logits: the new model's, [..., V].
        answers: the old model's, to the same positions, on the same device.

    Returns:
        The estimate, [...], in at least float32; of one position it may be negative. Its gradient
        `d KL / d logits = q - p`, with `p_rest / M` at each draw, is computed beside it, a few positions at a time.
    """
    ids_NA, log_p_NA = answers.ids.flatten(0, -2), answers.log_probs.flatten(0, -2)
    kl_N: Tensor = _KL.apply(logits.reshape(-1, logits.shape[-1]), ids_NA, log_p_NA, answers.rest.flatten())
    return kl_N.view(logits.shape[:-1])


class _KL(torch.autograd.Function):
    """The divergence; what the backward pass needs is its gradient, which takes no second softmax."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, ids_NA: Tensor, log_p_NA: Tensor, rest_N: Tensor) -> Tensor:
        """Return the divergence, [N]."""
        dtype = widened(logits_NV)
        finfo = torch.finfo(dtype)
        gradient_NV, kl_N = torch.empty_like(logits_NV), logits_NV.new_empty(len(logits_NV), dtype=dtype)
        for logits_nV, ids_nA, log_p_nA, rest_n, into_nV, into_n in logit_pieces(
            logits_NV, ids_NA, log_p_NA, rest_N, gradient_NV, kl_N
        ):
            log_p_nA = log_p_nA.to(dtype).clamp(min=finfo.min)  # 0 times infinity is no number
            p_nA = log_p_nA.exp()
            p_nA[:, -DRAWS:] = rest_n[:, None] / DRAWS
            total_n1 = p_nA.sum(1, keepdim=True)
            p_nA /= total_n1
            q_nV = logits_nV.softmax(1, dtype=dtype)
            log_q_nA = q_nV.gather(1, ids_nA).clamp_(min=finfo.tiny).log_()
            torch.sum(p_nA * (log_p_nA - total_n1.log() - log_q_nA), 1, out=into_n)
            into_nV.copy_(q_nV.scatter_add_(1, ids_nA, -p_nA))
        ctx.save_for_backward(gradient_NV)
        return kl_N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the logits, [N, V]."""
        (gradient_NV,) = ctx.saved_tensors
        return gradient_NV * gradient_N[:, None].to(gradient_NV.dtype), None, None, None

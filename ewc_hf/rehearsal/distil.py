"""How far a model's answers are from remembered ones.

Shapes: N positions, n of them in a piece, V vocabulary entries, K remembered answers a position.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..data import logit_pieces, widened
from .answers import Answers


def kl_divergence(logits: Tensor, answers: Answers) -> Tensor:
    """Return `KL(old || new)` of each position over the remembered answers and the rest, in nats.

        KL = sum_k p_k log(p_k / q_k) + p_rest log(p_rest / q_rest),    q = softmax(logits),  q_rest = 1 - sum_k q_k

    The old probabilities `p` are brought to the sum 1, which rounding takes from them. With all tokens remembered it
    is the whole divergence, with fewer a lower bound of it (data-processing inequality).

    Args:
        logits: the new model's, [..., V].
        answers: the old model's, to the same positions, on the same device.

    Returns:
        The divergence, [...], in at least float32. Its gradient `d KL / d logits`, `q_j - p_j` for a remembered token
        and `q_j (1 - p_rest / q_rest)` for any other, is computed beside it, a few positions at a time.
    """
    ids_NK, log_p_NK = answers.ids.flatten(0, -2), answers.log_probs.flatten(0, -2)
    kl_N: Tensor = _KL.apply(logits.reshape(-1, logits.shape[-1]), ids_NK, log_p_NK, answers.rest.flatten())
    return kl_N.view(logits.shape[:-1])


class _KL(torch.autograd.Function):
    """The divergence; what the backward pass needs is its gradient, which takes no second softmax."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, ids_NK: Tensor, log_p_NK: Tensor, rest_N: Tensor) -> Tensor:
        """Return the divergence, [N]."""
        dtype = widened(logits_NV)
        tiny = torch.finfo(dtype).tiny
        gradient_NV, kl_N = torch.empty_like(logits_NV), logits_NV.new_empty(len(logits_NV), dtype=dtype)
        for logits_nV, ids_nK, log_p_nK, rest_n, into_nV, into_n in logit_pieces(
            logits_NV, ids_NK, log_p_NK, rest_N, gradient_NV, kl_N
        ):
            p_nK, p_n1 = log_p_nK.to(dtype).exp(), rest_n.to(dtype)[:, None]
            total_n1 = p_nK.sum(1, keepdim=True) + p_n1
            p_nK, p_n1 = p_nK / total_n1, p_n1 / total_n1
            q_nV = logits_nV.softmax(1, dtype=dtype)
            q_nK = q_nV.gather(1, ids_nK)
            q_n1 = q_nV.scatter_(1, ids_nK, 0).sum(1, keepdim=True).clamp(min=tiny)
            into_n.copy_(_divergence(p_nK, q_nK.clamp(min=tiny)) + _divergence(p_n1, q_n1))
            into_nV.copy_(q_nV.mul_(1 - p_n1 / q_n1).scatter_(1, ids_nK, q_nK - p_nK))
        ctx.save_for_backward(gradient_NV)
        return kl_N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the logits, [N, V]."""
        (gradient_NV,) = ctx.saved_tensors
        return gradient_NV * gradient_N[:, None].to(gradient_NV.dtype), None, None, None


def _divergence(p_nK: Tensor, q_nK: Tensor) -> Tensor:
    """Return `sum_k p_k log(p_k / q_k)`, where 0 log 0 = 0."""
    return (torch.xlogy(p_nK, p_nK) - p_nK * q_nK.log()).sum(1)

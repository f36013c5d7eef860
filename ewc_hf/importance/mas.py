"""Memory Aware Synapses: how much each weight moves the squared length of the model's output.

    Omega_i = sum_examples |d S / d w_i| / number of label tokens,      S = sum_positions ||output at that position||^2

over the positions that predict a label token; the output is the softmax, as in the code of Kutalev & Lapina 2021
(arXiv 2109.10021), or the logits. The unit is not nats, so its lambda is its own.
Source: Aljundi et al. 2018, "Memory Aware Synapses", eq. 3 with the squared L2 norm of section 3.3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ExplicitEnum

from ..data import IGNORED, Batch, logit_pieces, widened
from ..per_example import Objective
from .methods import Method
from .objective import logits_of, require_distribution


class MASOutput(ExplicitEnum):
    """Which output's squared norm is differentiated."""

    PROBABILITIES = "probabilities"
    """The softmax, between 0 and 1 whatever the scale of the logits."""

    LOGITS = "logits"
    """The logits before the softmax."""


def unit_of(output: MASOutput) -> str:
    """Return the unit: the two outputs' importances are different quantities."""
    return Method.MAS.unit if output is MASOutput.PROBABILITIES else "squared logit norm per token"


def squared_output_norm(output: MASOutput) -> Objective:
    """Return the objective `S` of the module's formula, one number an example.

    Args:
        output: the output whose squared norm is summed over positions.
    """

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        logits = logits_of(model, batch)
        if output is MASOutput.PROBABILITIES:
            require_distribution(logits)
        norms: Tensor = _SquaredNorms.apply(logits.reshape(-1, logits.shape[-1]), output)
        return norms.view(batch.labels.shape).masked_fill(batch.labels == IGNORED, 0).view(len(batch), -1).sum(1)

    return objective


class _SquaredNorms(torch.autograd.Function):
    """`s = ||output||^2` at each of N positions; of probabilities p, `d s / d logits = 2 p (p - s)`."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, output: MASOutput) -> Tensor:
        """Return the squared norms, [N]."""
        norms_N = logits_NV.new_empty(len(logits_NV), dtype=widened(logits_NV))
        for logits_nV, into_n in logit_pieces(logits_NV, norms_N):
            torch.sum(_output(logits_nV, output).square_(), 1, out=into_n)
        ctx.save_for_backward(logits_NV, norms_N)
        ctx.output = output
        return norms_N

    @staticmethod
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the logits, [N, V]."""
        logits_NV, norms_N = ctx.saved_tensors
        gradient_NV = torch.empty_like(logits_NV)
        for logits_nV, norms_n, gradient_n, into_nV in logit_pieces(logits_NV, norms_N, gradient_N, gradient_NV):
            output_nV = _output(logits_nV, ctx.output)
            if ctx.output is MASOutput.PROBABILITIES:
                output_nV = output_nV * (output_nV - norms_n[:, None])
            into_nV.copy_(output_nV.mul_(2 * gradient_n[:, None]))
        return gradient_NV, None


def _output(logits_NV: Tensor, output: MASOutput) -> Tensor:
    """Return the output in a tensor of its own."""
    if output is MASOutput.LOGITS:
        return logits_NV.to(widened(logits_NV), copy=True)
    return logits_NV.softmax(-1, dtype=widened(logits_NV))

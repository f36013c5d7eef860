"""Memory Aware Synapses: how much each weight moves the squared length of the model's output.

    Omega_i = sum_examples |d S / d w_i| / number of label tokens,      S = sum_positions ||output at that position||^2

over the positions that predict a label token; the output is the softmax, as in the code of Kutalev & Lapina 2021
(arXiv 2109.10021), or the logits. The unit is not nats, so its lambda is its own.
Source: Aljundi et al. 2018, "Memory Aware Synapses", eq. 3 with the squared L2 norm of section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.utils import ExplicitEnum

from ..data import IGNORED, Batch
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
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        outputs = logits.softmax(-1) if output is MASOutput.PROBABILITIES else logits
        norms = outputs.square().sum(-1).masked_fill(batch.labels == IGNORED, 0)
        return norms.view(len(norms), -1).sum(1)

    return objective

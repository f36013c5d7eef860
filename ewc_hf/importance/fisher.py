"""Fisher information of a language model's labels, diagonal, per example.

    Omega_i = sum_examples (d log p(labels of the example) / d w_i)^2 / number of label tokens

With this unit `1/2 sum_i Omega_i (w_i - w*_i)^2` estimates the increase of the mean per-token negative log-likelihood,
in nats. Source: Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", eq. 3;
Kutalev & Lapina 2021 (arXiv 2109.10021), section 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..batching import Batch
from ..gradients import Objective
from ..labels import LabelSource, draw_labels, next_token_pairs, token_nll


def log_likelihood(source: LabelSource, generator: torch.Generator) -> Objective:
    """Return the objective `log p(labels of the example)`, the sum over its label tokens, in nats.

    Args:
        source: where the labels come from.
        generator: draws the labels where they are sampled.
    """

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        logits_BTV, labels_BT = next_token_pairs(model(**inputs).logits, batch["labels"])
        labels_BT = draw_labels(logits_BTV, labels_BT, source, generator)
        return -token_nll(logits_BTV, labels_BT).sum(dim=1)

    return objective

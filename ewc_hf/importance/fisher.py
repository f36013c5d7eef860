"""Fisher information of a model's labels, diagonal, per example.

    Omega_i = sum_examples (d log p(labels of the example) / d w_i)^2 / number of label tokens

With this unit `1/2 sum_i Omega_i (w_i - w*_i)^2` estimates the increase of the mean per-token negative log-likelihood,
in nats. Source: Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", eq. 3;
Kutalev & Lapina 2021 (arXiv 2109.10021), section 2.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..data import IGNORED, Batch, token_nll
from ..per_example import Objective
from .label_source import LabelSource, draw_labels, uniforms
from .methods import Method
from .objective import logits_of, require_distribution


def unit_of(source: LabelSource) -> str:
    """Return the unit: nats per token, but for predicted labels.

    Of those the squared gradients grow with the length of a sequence, since the tokens' gradients, which no chance
    makes cancel, add up.
    """
    if source is LabelSource.PREDICTED:
        return "squared gradient of predicted labels per token"
    return Method.FISHER.unit


def log_likelihood(source: LabelSource, seed: int) -> Objective:
    """Return the objective `log p(labels of the example)`, the sum over its label tokens, in nats.

    Args:
        source: where the labels come from.
        seed: of sampled labels.
    """

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        logits = logits_of(model, batch)
        require_distribution(logits)
        _require_classes(batch.labels, logits.shape[-1])
        quantiles = uniforms(batch, seed) if source is LabelSource.SAMPLED else None
        labels = draw_labels(logits, batch.labels, source, quantiles)
        return -token_nll(logits, labels).view(len(labels), -1).sum(1)

    return objective


def _require_classes(labels: Tensor, classes: int) -> None:
    """Check that every label that counts is the number of a class."""
    counted = labels[labels != IGNORED]
    if counted.numel() and not 0 <= counted.min() <= counted.max() < classes:
        raise ValueError(
            f"expected labels from 0 to {classes - 1}, or {IGNORED} where none counts, got {counted.min()} to "
            f"{counted.max()}; check the tokenizer, or mark what does not count by {IGNORED}"
        )

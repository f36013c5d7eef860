"""Where the labels come from whose log-probability the Fisher information differentiates.

Shapes: B examples, V vocabulary entries or classes, N positions that count.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers.utils import ExplicitEnum

from ..data import IGNORED, Batch

_ROWS_AT_A_TIME = 128


class LabelSource(ExplicitEnum):
    """Where the labels come from."""

    GROUND_TRUTH = "ground_truth"
    """The labels of the data: the empirical Fisher."""

    PREDICTED = "predicted"
    """The model's most probable label at each position; its importance is not in nats."""

    SAMPLED = "sampled"
    """A label drawn from the model's own distribution at each position: an unbiased estimate of the true Fisher."""


def draw_labels(logits: Tensor, labels: Tensor, source: LabelSource, uniforms: Tensor | None = None) -> Tensor:
    """Replace the labels that count by labels of `source`; ignored positions stay ignored.

    Args:
        logits: logits that predict `labels`, position by position.
        labels: the data's labels; `-100` marks positions that do not count.
        source: where the labels come from.
        uniforms: a number in [0, 1) for each label, where they are sampled: the quantile of the label drawn.

    Returns:
        Labels, outside autograd.
    """
    if source is LabelSource.GROUND_TRUTH:
        return labels
    counts = labels != IGNORED
    logits_NV = logits.detach()[counts]
    if source is LabelSource.PREDICTED:
        drawn_N = logits_NV.argmax(-1)
    else:
        assert uniforms is not None
        pieces = zip(logits_NV.split(_ROWS_AT_A_TIME), uniforms[counts].split(_ROWS_AT_A_TIME), strict=True)
        drawn_N = torch.cat([_quantiles(logits_nV, u_n) for logits_nV, u_n in pieces])
    return labels.masked_scatter(counts, drawn_N)


def _quantiles(logits_NV: Tensor, uniforms_N: Tensor) -> Tensor:
    """Return the label at each quantile of the distribution."""
    cumulative_NV = logits_NV.softmax(-1, dtype=uniforms_N.dtype).cumsum(-1)
    threshold_N1 = uniforms_N[:, None] * cumulative_NV[:, -1:]
    return torch.searchsorted(cumulative_NV, threshold_N1, right=True).squeeze(1).clamp(max=logits_NV.shape[1] - 1)


def uniforms(batch: Batch, seed: int) -> Tensor:
    """Return a number in [0, 1) for each label, which depends on the seed, its example and its position only."""
    shape = batch.labels.shape[1:]
    rows = [np.random.default_rng((seed % 2**64, number)).random(shape) for number in batch.numbers.tolist()]
    return torch.from_numpy(np.stack(rows)).to(batch.labels.device)

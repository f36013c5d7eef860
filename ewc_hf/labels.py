"""Label sources and the per-token negative log-likelihood of labels, masked and shifted.

Shapes: B examples, T positions, V vocabulary entries, N = B*T positions or those of them that count.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers.utils import ExplicitEnum

IGNORED = -100
"""The label of a position that does not count, as everywhere in transformers."""


class LabelSource(ExplicitEnum):
    """Where the labels come from whose log-probability the Fisher information differentiates."""

    GROUND_TRUTH = "ground_truth"
    """The labels of the data: the empirical Fisher."""

    PREDICTED = "predicted"
    """The model's most probable label at each position."""

    SAMPLED = "sampled"
    """A label drawn from the model's own distribution at each position: an unbiased estimate of the true Fisher."""


def next_token_pairs(logits_BTV: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Pair each position's logits with the label one position later, as causal models do.

    Returns:
        Logits [B, T-1, V] in at least float32 and labels [B, T-1].
    """
    logits_BTV = logits_BTV[:, :-1]
    if logits_BTV.dtype in (torch.float16, torch.bfloat16):
        logits_BTV = logits_BTV.float()
    return logits_BTV, labels_BT[:, 1:]


def draw_labels(logits_BTV: Tensor, labels_BT: Tensor, source: LabelSource, generator: torch.Generator) -> Tensor:
    """Replace the labels that count by labels of `source`; ignored positions stay ignored.

    Args:
        logits_BTV: logits that predict `labels_BT`, position by position (already shifted).
        labels_BT: the data's labels; `-100` marks positions that do not count.
        source: where the labels come from.
        generator: draws the sampled labels, on the CPU so that every device draws the same.

    Returns:
        Labels [B, T], outside autograd.
    """
    if source is LabelSource.GROUND_TRUTH:
        return labels_BT
    counts_BT = labels_BT != IGNORED
    logits_NV = logits_BTV.detach()[counts_BT]
    if source is LabelSource.PREDICTED:
        labels_N = logits_NV.argmax(-1)
    else:
        labels_N = torch.multinomial(logits_NV.softmax(-1).cpu(), 1, generator=generator).squeeze(1)
    return labels_BT.masked_scatter(counts_BT, labels_N.to(labels_BT.device))


def token_nll(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Return `-log p(label)` in nats at each position, 0 where the label is ignored: a tensor [B, T]."""
    nll_N = cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=IGNORED, reduction="none")
    return nll_N.view(labels_BT.shape)

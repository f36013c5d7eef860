"""Whether a model computes the same for a padded example as for the example alone."""

from __future__ import annotations

import torch
from torch import nn

from ..data import IGNORED, Batch
from .errors import is_out_of_memory, round_off_of
from .one_by_one import Objective


@torch.no_grad()
def padding_is_harmless(model: nn.Module, batch: Batch, objective: Objective) -> bool | None:
    """Compare the objective of the example with the most padding, padded among others and alone.

    None where no example with labels is padded, which tells nothing. It differs where a model takes no attention mask,
    mixes positions beside it, as convolutions do, or looks for the last token of a text and is not told which token is
    padding.
    """
    has_labels = (batch.labels.reshape(len(batch), -1) != IGNORED).any(1)
    padding = torch.stack([lengths.max() - lengths for lengths in batch.lengths.values()]).sum(0)
    padding = padding.masked_fill(~has_labels, 0)
    if not padding.any():
        return None
    pair = batch.rows(torch.stack([padding.argmax(), padding.argmin()]))
    alone_B = torch.cat([objective(model, example) for example in pair.alone()])
    try:
        padded_B = objective(model, pair)
    except Exception as error:  # the other way succeeded, so padding is the reason
        if is_out_of_memory(error):
            raise
        return False
    tolerance = round_off_of(model) ** 0.75
    return torch.allclose(padded_B, alone_B, rtol=tolerance, atol=tolerance)

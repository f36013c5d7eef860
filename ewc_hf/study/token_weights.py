"""Losses that weight each token by what the model says of it: rivals that change nothing else.

Shapes: B examples, T positions, V vocabulary entries, K likeliest tokens.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..data import next_tokens, token_nll
from .ways import Way

_LIKELIEST = 20
"""Tokens whose entropy stands for the whole distribution's, as in the paper."""


def dft_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Return `sum_t sg(p_t) * -log p_t / number of label tokens` (Wu et al. 2025, arXiv 2508.05629, eq. 9).

    `sg` lets no gradient through.
    """
    return _weighted(outputs.logits, labels, num_items_in_batch, lambda logits_BTV, nll_BT: (-nll_BT).exp())


def eaft_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Return `sum_t sg(H_t / ln K) * -log p_t / number of label tokens` (arXiv 2601.02151).

    `H_t` is the entropy of the model's answer at the position, of its `K = 20` likeliest tokens alone.
    """
    return _weighted(outputs.logits, labels, num_items_in_batch, lambda logits_BTV, nll_BT: _entropy(logits_BTV))


LOSSES = {Way.DFT: dft_loss, Way.EAFT: eaft_loss}
"""The loss of each way that weights tokens."""


def _weighted(logits_BTV: Tensor, labels_BT: Tensor, num_items: Tensor | int | None, weights_of: Any) -> Tensor:
    targets_BT = next_tokens(labels_BT)
    nll_BT = token_nll(logits_BTV, targets_BT)
    weights_BT = weights_of(logits_BTV.detach(), nll_BT.detach())
    return (weights_BT * nll_BT).sum() / ((targets_BT >= 0).sum() if num_items is None else num_items)


def _entropy(logits_BTV: Tensor) -> Tensor:
    """Return the entropy of the likeliest tokens at each position, [B, T], as a share of the most that it can be."""
    num_tokens = min(_LIKELIEST, logits_BTV.shape[-1])
    log_p_BTK = logits_BTV.topk(num_tokens).values.log_softmax(-1, dtype=torch.float32)
    return -(log_p_BTK.exp() * log_p_BTK).sum(-1) / math.log(num_tokens)

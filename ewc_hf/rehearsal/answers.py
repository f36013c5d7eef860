"""What a model answers at each position: its most likely next tokens, the mass of all others, and draws from these.

Shapes: B rows, T positions, V vocabulary entries, K likeliest tokens and M drawn ones a position.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..data import widened
from ..engines import device_of

DRAWS = 8
"""Tokens of each position that stand for all but the likeliest."""
_POSITIONS_AT_ONCE = 1024
"""Positions that are read in one forward pass, a row at least: their logits are the largest thing in memory."""


@dataclass(frozen=True)
class Answers:
    """A model's `K` most likely next tokens at each position of some rows, and a sample of all others.

    Attributes:
        ids: token ids: the `K` likeliest, then `M` that were drawn from the others, [B, T, K + M].
        log_probs: their log-probabilities in nats, [B, T, K + M], of the likeliest falling.
        rest: the probability of all but the likeliest together, [B, T].
    """

    ids: Tensor
    log_probs: Tensor
    rest: Tensor

    def to(self, device: torch.device) -> Answers:
        """Return them on a device."""
        return Answers(*(getattr(self, field.name).to(device) for field in fields(self)))


def answers_of(logits_BTV: Tensor, top_k: int, generator: torch.Generator | None = None) -> Answers:
    """Return the `top_k` largest log-probabilities of each position, and draws from the rest; in at least float32.

    Args:
        logits_BTV: the model's.
        top_k: likeliest tokens.
        generator: of the draws, on the logits' device; None is torch's own.
    """
    log_probs_BTV = logits_BTV.log_softmax(-1, dtype=widened(logits_BTV))
    _, ids_BTK = log_probs_BTV.topk(top_k, dim=-1)
    others_BTV = log_probs_BTV.exp().scatter_(-1, ids_BTK, 0)
    rest_BT = others_BTV.sum(-1)
    # Of nothing the likeliest is drawn, and counts for nothing; some tokens have a log-probability of minus infinity.
    others_BTV.scatter_add_(-1, ids_BTK[..., :1], (rest_BT == 0).to(others_BTV)[..., None])
    drawn = torch.multinomial(others_BTV.flatten(0, 1), DRAWS, replacement=True, generator=generator)
    ids_BTA = torch.cat([ids_BTK, drawn.view(*rest_BT.shape, DRAWS)], -1)
    return Answers(ids_BTA, log_probs_BTV.gather(-1, ids_BTA), rest_BT)


def answers_to(model: nn.Module, rows: list[Tensor], top_k: int, seed: int = 0) -> list[Answers]:
    """Return a model's answers to each of some rows of tokens, on the CPU, without the padding between them.

    Args:
        model: a causal language model in eval mode, without autocast.
        rows: token ids, [T] each.
        top_k: likeliest tokens of each position.
        seed: of the draws from all others.

    Raises:
        ValueError: the model's result has no logits, or not so many a position.
    """
    device = device_of(next(model.parameters()))
    at_once = max(_POSITIONS_AT_ONCE // max(map(len, rows)), 1)
    generator = torch.Generator(device).manual_seed(seed)
    found = []
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        ids_BT = pad_sequence(some, batch_first=True).to(device)
        mask_BT = pad_sequence([torch.ones_like(row) for row in some], batch_first=True).to(device)
        logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT).logits
        if logits_BTV.shape[:2] != ids_BT.shape or top_k > logits_BTV.shape[-1]:
            raise ValueError(
                f"expected logits of {top_k} or more tokens at each of {tuple(ids_BT.shape)} positions, got the shape "
                f"{tuple(logits_BTV.shape)}; load the model with `AutoModelForCausalLM`, or lower top_k"
            )
        answers = answers_of(logits_BTV, top_k, generator).to(torch.device("cpu"))
        found += [
            Answers(answers.ids[row, :length], answers.log_probs[row, :length], answers.rest[row, :length])
            for row, length in enumerate(map(len, some))
        ]
    return found

"""The loss of each token of a document, and the tokens that one model predicts worse than another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data import token_nll
from ..engines import device_of, evaluating, in_full_precision, without_cache
from .causal import context_of
from .documents import read_document
from .windows import windows


@dataclass(frozen=True)
class TokenLoss:
    """How well a token of a document is predicted.

    Attributes:
        text: its part of the document; empty where it is the rest of a character that begins in the token before.
        nll: its negative log-likelihood, nats.
    """

    text: str
    nll: float


@torch.no_grad()
def token_losses(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int | None = None
) -> list[TokenLoss]:
    """Return the loss of each token of a document, in the same windows as `evaluate_perplexity` has by default.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        text: the document.
        max_tokens: cut it after so many; None reads it whole.

    Raises:
        ValueError: a slow tokenizer, or a loss that is not finite.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"expected a fast tokenizer, which tells where its tokens are, got {type(tokenizer).__name__}"
        )
    document = read_document(tokenizer, text, max_tokens)
    window = int(min(context_of(model), 1024))
    device, losses = device_of(next(model.parameters())), []
    with evaluating(model), in_full_precision(model), without_cache(model):
        for seen, scored in windows(document.tokens, window, max(window // 2, 1)):
            ids = torch.tensor([seen], device=device)
            logits, labels = model(input_ids=ids).logits[:, -scored - 1 : -1], ids[:, -scored:]
            losses += token_nll(logits, labels)[0].tolist()
    if not all(map(math.isfinite, losses)):
        raise ValueError(f"expected finite losses, got NaN or infinity from {type(model).__name__}; it has diverged")
    return [TokenLoss(each, loss) for each, loss in zip(document.token_texts, losses, strict=True)]


@dataclass(frozen=True)
class Risen:
    """A token that is predicted worse than before.

    Attributes:
        context: the text before it, its last characters.
        text: the token.
        before: its NLL before, nats.
        after: its NLL after, nats.
    """

    context: str
    text: str
    before: float
    after: float


def most_risen(documents: Iterable[tuple[Sequence[TokenLoss], Sequence[TokenLoss]]], number: int = 20) -> list[Risen]:
    """Return the tokens whose loss rose most, the worst first.

    Args:
        documents: losses of each one's tokens, before and after.
        number: how many at most.
    """
    risen = []
    for before, after in documents:
        texts = [each.text for each in before]
        for place, (old, new) in enumerate(zip(before, after, strict=True)):
            if new.nll > old.nll:
                context = "".join(texts[max(place - 12, 0) : place])[-40:]
                risen.append(Risen(context, old.text, old.nll, new.nll))
    return sorted(risen, key=lambda each: each.before - each.after)[:number]

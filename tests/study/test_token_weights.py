"""Losses that weight tokens, against their formulas."""

import math

import pytest
import torch
from transformers.modeling_outputs import CausalLMOutput

from ewc_hf.study import token_weights


@pytest.fixture
def batch():
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 5, 30), generator=draws, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 30, (2, 5), generator=draws)
    labels[0, 2] = -100
    return logits, labels


def by_hand(logits, labels, weight_of):
    """Sum over the positions that predict a label, and its gradient with the weights held."""
    total = 0.0
    for row, targets in zip(logits, labels, strict=True):
        for position, target in zip(row[:-1], targets[1:], strict=True):
            if target >= 0:
                p = position.exp() / position.exp().sum()
                total = total - weight_of(p.detach(), target) * p[target].log()
    return total / 7


def probability(p, target):
    return p[target]


def entropy_of_twenty(p, target):
    likeliest = p.sort(descending=True).values[:20]
    likeliest = likeliest / likeliest.sum()
    return -(likeliest * likeliest.log()).sum() / math.log(20)


@pytest.mark.parametrize(
    ("loss", "weight_of", "rounding"),
    [(token_weights.dft_loss, probability, 1e-12), (token_weights.eaft_loss, entropy_of_twenty, 1e-6)],
    ids=["DFT", "EAFT"],
)
@pytest.mark.parametrize("given", [7, None], ids=["the trainer's number", "its own number"])
def test_value_and_gradient_are_those_of_the_formula(batch, loss, weight_of, rounding, given):
    logits, labels = batch
    got, expected = loss(CausalLMOutput(logits=logits), labels, given), by_hand(logits, labels, weight_of)
    torch.testing.assert_close(got, expected, rtol=rounding, atol=0, check_dtype=False)
    (gradient,), (by_formula,) = (torch.autograd.grad(value, logits) for value in (got, expected))
    torch.testing.assert_close(gradient, by_formula, rtol=0, atol=rounding)

"""Tokens that a model masks, and what little is left of a probability after rounding."""

import pytest
import torch

from ewc_hf.rehearsal import Answers, answers_of, kl_divergence
from ewc_hf.rehearsal.columns import to_table, to_tensors

TOKENS = 11


def sure_of_one(masked):
    """Half of the tokens masked; of the others one has all the probability that a float32 can tell."""
    logits = torch.zeros(2, 50, TOKENS)
    logits[..., 3], logits[..., ::2] = 200.0, masked
    return logits


@pytest.mark.parametrize("masked", [-torch.inf, torch.finfo(torch.float32).min], ids=["infinity", "smallest"])
def test_a_masked_token_is_never_drawn(masked):
    answers = answers_of(sure_of_one(masked), 2)
    assert (answers.rest == 0).all() and (answers.ids[..., 2:] == 3).all()


@pytest.mark.parametrize("masked", [-torch.inf, torch.finfo(torch.float32).min], ids=["infinity", "smallest"])
@pytest.mark.parametrize("top_k", [1, 2, TOKENS])
def test_where_all_others_are_nothing_they_count_for_nothing(masked, top_k):
    new = torch.randn(2, 50, TOKENS, generator=torch.Generator().manual_seed(0)).requires_grad_()
    kl = kl_divergence(new, answers_of(sure_of_one(masked), top_k))
    kl.sum().backward()
    assert torch.allclose(kl, -new.log_softmax(-1)[..., 3], atol=1e-5)
    expected = new.detach().softmax(-1) - torch.eye(TOKENS)[3]
    assert torch.allclose(new.grad, expected, atol=1e-6)


def test_answers_rounded_to_float16_are_at_the_distance_of_the_distribution_that_they_are():
    """It is never negative, and at the model that gave them it is of second order in the rounding."""
    old = 2 * torch.randn(200, 3, TOKENS, generator=torch.Generator().manual_seed(0))
    answers = answers_of(old, TOKENS)
    of_rows = [Answers(*row) for row in zip(answers.ids, answers.log_probs, answers.rest, strict=True)]
    _, _, stored = to_tensors(to_table(list(torch.zeros(200, 3).long()), of_rows))
    kl = kl_divergence(old.double(), stored)
    assert stored.log_probs.dtype == torch.float16 and 0 < kl.min() and kl.max() < 1e-6

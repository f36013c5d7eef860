"""The divergence and its gradient against autograd of the formula."""

from itertools import pairwise

import pytest
import torch
from oracles import truncated_divergence

from ewc_hf.data import logits as pieces
from ewc_hf.rehearsal import Answers, kl_divergence, top_answers

ROWS, POSITIONS, TOKENS = 3, 5, 11


def drawn(seed, dtype=torch.float64, scale=3.0):
    draws = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(ROWS, POSITIONS, TOKENS, generator=draws, dtype=torch.float64)).to(dtype)


def with_gradient(value_of, logits, upstream):
    logits = logits.clone().requires_grad_()
    value = value_of(logits)
    value.backward(upstream)
    return value.detach(), logits.grad


def expected(old, new, top_k, upstream):
    """Values and gradients in float64, of the logits as they are rounded."""
    old_log_p = old.double().log_softmax(-1)
    return with_gradient(
        lambda logits: truncated_divergence(old_log_p, logits.log_softmax(-1), top_k), new.double(), upstream.double()
    )


@pytest.mark.parametrize("top_k", [1, 4, TOKENS - 1, TOKENS])
def test_value_and_gradient_are_those_of_the_formula(top_k):
    old, new, upstream = drawn(0), drawn(1), drawn(2)[..., 0]
    got = with_gradient(lambda logits: kl_divergence(logits, top_answers(old, top_k)), new, upstream)
    for a, b in zip(got, expected(old, new, top_k, upstream), strict=True):
        assert a.dtype == torch.float64 and (a - b).abs().max() < 1e-12


def test_with_all_tokens_it_is_the_whole_divergence_and_with_fewer_less():
    old, new = drawn(0), drawn(1)
    old_log_p, new_log_p = old.log_softmax(-1), new.log_softmax(-1)
    whole = (old_log_p.exp() * (old_log_p - new_log_p)).sum(-1)
    values = [kl_divergence(new, top_answers(old, top_k)) for top_k in range(1, TOKENS + 1)]
    assert (values[-1] - whole).abs().max() < 1e-12
    for fewer, more in pairwise(values):
        assert (fewer <= more + 1e-12).all()


@pytest.mark.parametrize("top_k", [4, TOKENS])
def test_the_old_model_itself_is_at_no_distance(top_k):
    value, gradient = with_gradient(
        lambda logits: kl_divergence(logits, top_answers(drawn(0), top_k)), drawn(0), drawn(2)[..., 0]
    )
    assert value.abs().max() < 1e-14 and gradient.abs().max() < 1e-14


def test_pieces_make_no_difference(monkeypatch):
    answers, upstream = top_answers(drawn(0), 4), drawn(2)[..., 0]
    whole = with_gradient(lambda logits: kl_divergence(logits, answers), drawn(1), upstream)
    monkeypatch.setattr(pieces, "_PIECE", 2 * TOKENS)
    in_pieces = with_gradient(lambda logits: kl_divergence(logits, answers), drawn(1), upstream)
    assert all(map(torch.equal, whole, in_pieces))


@pytest.mark.parametrize(("dtype", "close"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3), (torch.float32, 1e-5)])
def test_lower_precision_computes_in_float32_and_gets_a_gradient_of_its_own(dtype, close):
    old, new, upstream = drawn(0, dtype), drawn(1, dtype), drawn(2, torch.float32)[..., 0]
    value, gradient = with_gradient(lambda logits: kl_divergence(logits, top_answers(old, 4)), new, upstream)
    expected_value, expected_gradient = expected(old, new, 4, upstream)
    assert (value.dtype, gradient.dtype) == (torch.float32, dtype)
    assert (value - expected_value).abs().max() < 1e-5
    assert (gradient.double() - expected_gradient).abs().max() < close * upstream.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("top_k", [2, 4, TOKENS])
@pytest.mark.parametrize("lost", ["an old token", "all other tokens"])
def test_a_new_model_without_mass_where_the_old_one_had_some_is_finite_and_drawn_back(dtype, top_k, lost):
    old = drawn(0, dtype, scale=0.5)
    answers, new = top_answers(old, top_k), drawn(1, dtype)
    if lost == "an old token":
        new.scatter_(-1, answers.ids[..., :1], -3e4)
    else:
        new.scatter_(-1, answers.ids, 3e4)
    value, gradient = with_gradient(
        lambda logits: kl_divergence(logits, answers), new, torch.ones(ROWS, POSITIONS, dtype=torch.float64)
    )
    assert value.isfinite().all() and gradient.isfinite().all()
    if lost == "an old token":
        assert (value > 1).all() and (gradient.gather(-1, answers.ids[..., :1]) < 0).all()


@pytest.mark.parametrize("top_k", [4, TOKENS])
def test_stored_answers_are_brought_to_the_sum_1(top_k):
    """Rounded to float16 they sum to a little more or less, which the divergence would show at no distance."""
    answers, new = top_answers(drawn(0, torch.float32), top_k), drawn(1)
    stored = Answers(answers.ids, answers.log_probs.half(), answers.rest)
    p = torch.cat([stored.log_probs.double().exp(), stored.rest.double()[..., None]], -1)
    assert (p.sum(-1) - 1).abs().max() > 1e-5
    p = p / p.sum(-1, keepdim=True)
    q = new.softmax(-1).gather(-1, stored.ids)
    q = torch.cat([q, 1 - q.sum(-1, keepdim=True)], -1)
    used = p > 0
    formula = (p * (p / torch.where(used, q, 1)).where(used, 1).log()).sum(-1)
    assert (kl_divergence(new, stored) - formula).abs().max() < 1e-9


def test_a_gradient_of_the_gradient_is_refused():
    """The gradient is computed beside the value, and nothing is known of how it changes."""
    logits = drawn(1).requires_grad_()
    squared = kl_divergence(logits, top_answers(drawn(0), 4)).square().sum()
    (gradient,) = torch.autograd.grad(squared, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()

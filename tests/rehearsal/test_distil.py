"""The divergence and its gradient against autograd of the formula."""

from functools import partial

import pytest
import torch
from oracles import divergence, remembered_divergence

from ewc_hf.data import logits as pieces
from ewc_hf.rehearsal import Answers, answers_of, kl_divergence

ROWS, POSITIONS, TOKENS = 3, 5, 11


def drawn(seed, dtype=torch.float64, scale=3.0):
    draws = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(ROWS, POSITIONS, TOKENS, generator=draws, dtype=torch.float64)).to(dtype)


def with_gradient(value_of, logits, upstream):
    logits = logits.clone().requires_grad_()
    value = value_of(logits)
    value.backward(upstream)
    return value.detach(), logits.grad


def expected(answers, new, upstream):
    """Values and gradients in float64, of the logits as they are rounded."""
    remembered = answers.ids, answers.log_probs.double(), answers.rest.double()
    return with_gradient(
        lambda logits: remembered_divergence(logits.log_softmax(-1), *remembered), new.double(), upstream.double()
    )


@pytest.mark.parametrize("top_k", [1, 4, TOKENS - 1, TOKENS])
def test_value_and_gradient_are_those_of_the_formula(top_k):
    answers, new, upstream = answers_of(drawn(0), top_k), drawn(1), drawn(2)[..., 0]
    got = with_gradient(lambda logits: kl_divergence(logits, answers), new, upstream)
    for a, b in zip(got, expected(answers, new, upstream), strict=True):
        assert a.dtype == torch.float64 and (a - b).abs().max() < 1e-12


def test_with_all_tokens_it_is_the_whole_divergence():
    old, new = drawn(0), drawn(1)
    whole = divergence(old.log_softmax(-1), new.log_softmax(-1))
    assert (kl_divergence(new, answers_of(old, TOKENS)) - whole).abs().max() < 1e-12


def test_of_tokens_that_were_added_the_old_model_said_nothing():
    """The old ones lose what these take: `KL = log sum_all exp - log sum_old exp` where their logits are as before."""
    old, added = drawn(0), drawn(1)[..., :2]
    new = torch.cat([old, added], -1)
    lost = new.logsumexp(-1) - old.logsumexp(-1)
    assert (kl_divergence(new, answers_of(old, TOKENS)) - lost).abs().max() < 1e-12


@pytest.mark.parametrize("top_k", [1, 4])
def test_with_fewer_its_mean_over_draws_is_the_whole_divergence_and_so_is_its_gradients(top_k):
    """400 independent draws; five standard errors."""
    old, new, upstream = drawn(0, scale=1.0), drawn(1), drawn(2)[..., 0]
    draws, estimates = torch.Generator().manual_seed(0), []
    for _ in range(400):
        answers = answers_of(old, top_k, draws)
        estimates.append(with_gradient(partial(kl_divergence, answers=answers), new, upstream))
    old_log_p = old.log_softmax(-1)
    whole = with_gradient(lambda logits: divergence(old_log_p, logits.log_softmax(-1)), new, upstream)
    for of_draws, exact in zip(zip(*estimates, strict=True), whole, strict=True):
        stacked = torch.stack(of_draws)
        error = stacked.std(0) / 20 + 1e-12
        assert ((stacked.mean(0) - exact).abs() < 5 * error).all()
        assert (error > 1e-6).any()


@pytest.mark.parametrize("top_k", [4, TOKENS])
def test_the_old_model_itself_is_at_no_distance(top_k):
    """Its gradient is no more than what the draws say too much or too little of."""
    value, gradient = with_gradient(
        lambda logits: kl_divergence(logits, answers_of(drawn(0), top_k)), drawn(0), drawn(2)[..., 0]
    )
    assert value.abs().max() < 1e-14 and (top_k < TOKENS or gradient.abs().max() < 1e-14)


def test_pieces_make_no_difference(monkeypatch):
    answers, upstream = answers_of(drawn(0), 4), drawn(2)[..., 0]
    whole = with_gradient(lambda logits: kl_divergence(logits, answers), drawn(1), upstream)
    monkeypatch.setattr(pieces, "_PIECE", 2 * TOKENS)
    in_pieces = with_gradient(lambda logits: kl_divergence(logits, answers), drawn(1), upstream)
    assert all(map(torch.equal, whole, in_pieces))


@pytest.mark.parametrize(("dtype", "close"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3), (torch.float32, 1e-5)])
def test_lower_precision_computes_in_float32_and_gets_a_gradient_of_its_own(dtype, close):
    old, new, upstream = drawn(0, dtype), drawn(1, dtype), drawn(2, torch.float32)[..., 0]
    answers = answers_of(old, 4)
    value, gradient = with_gradient(lambda logits: kl_divergence(logits, answers), new, upstream)
    expected_value, expected_gradient = expected(answers, new, upstream)
    assert (value.dtype, gradient.dtype) == (torch.float32, dtype)
    assert (value - expected_value).abs().max() < 1e-5
    assert (gradient.double() - expected_gradient).abs().max() < close * upstream.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("top_k", [2, 4, TOKENS])
@pytest.mark.parametrize("lost", ["an old token", "all other tokens"])
def test_a_new_model_without_mass_where_the_old_one_had_some_is_finite_and_drawn_back(dtype, top_k, lost):
    old = drawn(0, dtype, scale=0.5)
    answers, new = answers_of(old, top_k), drawn(1, dtype)
    if lost == "an old token":
        new.scatter_(-1, answers.ids[..., :1], -3e4)
    else:
        new.scatter_(-1, answers.ids[..., :top_k], 3e4)
    value, gradient = with_gradient(
        lambda logits: kl_divergence(logits, answers), new, torch.ones(ROWS, POSITIONS, dtype=torch.float64)
    )
    assert value.isfinite().all() and gradient.isfinite().all()
    if lost == "an old token":
        assert (value > 1).all() and (gradient.gather(-1, answers.ids[..., :1]) < 0).all()


@pytest.mark.parametrize("top_k", [4, TOKENS])
def test_stored_answers_are_brought_to_the_sum_1(top_k):
    """Rounded to float16 they sum to a little more or less, as the gradient would, whose sum is 0."""
    answers = answers_of(drawn(0, torch.float32), top_k)
    stored = Answers(answers.ids, answers.log_probs.half(), answers.rest)
    assert (stored.log_probs[..., :-8].double().exp().sum(-1) + stored.rest - 1).abs().max() > 1e-5
    _, gradient = with_gradient(lambda logits: kl_divergence(logits, stored), drawn(1), drawn(2)[..., 0])
    assert gradient.sum(-1).abs().max() < 1e-12


def test_a_gradient_of_the_gradient_is_refused():
    """The gradient is computed beside the value, and nothing is known of how it changes."""
    logits = drawn(1).requires_grad_()
    squared = kl_divergence(logits, answers_of(drawn(0), 4)).square().sum()
    (gradient,) = torch.autograd.grad(squared, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()

"""What no lambda may break in the penalty's passes over memory."""

import pytest
import torch
from drawn_weights import draw
from hypothesis import given
from hypothesis import strategies as st

from ewc_hf.penalty.kernels import add_penalty_gradient, penalty_value, proximal_step
from ewc_hf.penalty.step_size import StepSize

LAMBDA, LR = 30.0, 0.1

pytestmark = pytest.mark.usefixtures("small_chunks")


def floats(smallest, largest):
    return st.floats(smallest, largest, width=32)


WEIGHTS = st.tuples(floats(-(2.0**60), 2.0**60), floats(-(2.0**60), 2.0**60), floats(0, 2.0**100), floats(0, 2.0**100))
DRAWN = st.lists(WEIGHTS, min_size=1, max_size=9)
LAMBDAS = st.one_of(st.floats(0, 1e4), st.floats(1e30, 1.7e308))
DTYPES = st.sampled_from([torch.float32, torch.float64])


def columns(weights, dtype):
    return torch.tensor(weights, dtype=dtype).T.contiguous().unbind()


def lies_between(x, one_end, other_end):
    return bool(((x >= torch.minimum(one_end, other_end)) & (x <= torch.maximum(one_end, other_end))).all())


@given(DRAWN, LAMBDAS, st.floats(0, 1e3), st.floats(1e-12, 1), st.booleans(), DTYPES)
def test_proximal_step_never_overshoots(weights, ewc_lambda, lr, eps, adaptive, dtype):
    w, anchor, omega, v = columns(weights, dtype)
    pulled = w.clone()
    proximal_step(pulled, anchor, omega, ewc_lambda, StepSize(lr, v, 0.5, eps) if adaptive else StepSize(lr))
    assert lies_between(pulled, w, anchor)
    free = omega * ewc_lambda * lr == 0
    assert torch.equal(pulled[free], w[free])


@given(DRAWN, LAMBDAS, st.floats(1e-8, 10), DTYPES)
def test_stabilized_gradient_never_overshoots_under_sgd(weights, ewc_lambda, alpha, dtype):
    w, anchor, omega, _ = columns(weights, dtype)
    grad = torch.zeros_like(w)
    add_penalty_gradient(grad, w, anchor, omega, ewc_lambda, alpha, 1)
    assert grad.isfinite().all()
    assert (grad * (w - anchor) >= 0).all()
    assert ((grad * alpha).abs() <= (w - anchor).abs() * (1 + 4 * torch.finfo(dtype).eps)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("ewc_lambda", [1e20, 1e38, 1e39, 1e300])
def test_a_huge_lambda_lands_exactly_on_the_anchor(ewc_lambda, dtype):
    w, anchor, omega, v = draw((5, 6), dtype)
    omega, v = omega.to(dtype), v.to(dtype)
    pulled = w.clone()
    proximal_step(pulled, anchor, omega, ewc_lambda, StepSize(LR, v, eps=1e-8))
    assert torch.equal(pulled, torch.where(omega > 0, anchor, w))


def test_a_weight_without_any_task_gradient_snaps_to_its_anchor():
    """Its second moment is 0, so Adam's own step per unit of gradient is `lr/eps`, the longest there is."""
    w, anchor, omega, _ = draw((5, 6))
    pulled = w.clone()
    proximal_step(pulled, anchor, omega, LAMBDA, StepSize(LR, torch.zeros_like(w), torch.tensor(0.5), 1e-8))
    torch.testing.assert_close(pulled, torch.where(omega > 0, anchor, w), rtol=0, atol=1e-5)


NOTHING = {"lambda": (0.0, LR, 1.0), "lr": (LAMBDA, 0.0, 1.0), "importance": (1e300, LR, 0.0)}


@pytest.mark.parametrize("case", NOTHING.values(), ids=NOTHING)
def test_nothing_is_pulled_without(case):
    ewc_lambda, lr, factor = case
    w, anchor, omega, _ = draw((5, 6))
    for step in (StepSize(lr), StepSize(lr, torch.zeros_like(w), torch.tensor(0.5), 1e-8)):
        pulled = w.clone()
        proximal_step(pulled, anchor, omega * factor, ewc_lambda, step)
        assert torch.equal(pulled, w)


def test_under_sgd_plain_ewc_explodes_where_the_stabilized_does_not():
    w, anchor, omega, _ = draw((5, 6))

    def after_20_steps(alpha):
        moving = w.clone()
        for _ in range(20):
            grad = torch.zeros_like(moving)
            add_penalty_gradient(grad, moving, anchor, omega, 1e6, alpha, 1)
            moving -= LR * grad
        return moving

    assert after_20_steps(alpha=0).abs().max() > 1e30
    stabilized = after_20_steps(alpha=LR)
    assert lies_between(stabilized, w, anchor)
    torch.testing.assert_close(stabilized[omega > 0], anchor[omega > 0], rtol=0, atol=1e-9)


def test_plain_penalty_at_the_anchor_is_zero_at_any_lambda():
    w, grad = torch.ones(3), torch.zeros(3)
    assert penalty_value(w, w, torch.full((3,), 10.0), 1e38, 0).item() == 0
    add_penalty_gradient(grad, w, w, torch.full((3,), 10.0), 1e38, 0, 1)
    assert grad.tolist() == [0, 0, 0]

"""The penalty's passes over memory against their formulas, and what no lambda may break."""

import math
import shutil

import oracles
import pytest
import torch
from ewc_hf.step_size import StepSize
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.utils import counters

from ewc_hf import penalty
from ewc_hf.penalty import (
    add_penalty_gradient,
    penalty_gradient_reference,
    penalty_value,
    penalty_value_reference,
    proximal_step,
    proximal_step_reference,
)

LAMBDA, LR = 30.0, 0.1
SHAPES = {"one": (1,), "row": (7,), "matrix": (5, 6), "cube": (2, 3, 4)}
ALPHAS = {"plain": 0.0, "stabilized": 0.05}


def named(cases):
    return [pytest.param(case, id=name) for name, case in cases.items()]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """So that the small tensors here are larger than one chunk, and the last chunk is a short one."""
    monkeypatch.setattr(penalty, "_CHUNK", 4)


def draw(shape, dtype=torch.float64, seed=0):
    """Weight, anchor, importance over several magnitudes with zeros, and a second moment."""
    draws = torch.Generator().manual_seed(seed)
    w, anchor, u, v = (torch.rand(shape, generator=draws, dtype=torch.float64) for _ in range(4))
    omega = torch.where(u < 0.2, 0.0, 10 ** (6 * u - 4))
    return (w - 0.5).to(dtype), (anchor - 0.5).to(dtype), omega, v


def transposed(*tensors):
    """The same values in another order of memory."""
    return [t.T.contiguous().T for t in tensors]


@pytest.mark.parametrize("shape", named(SHAPES))
@pytest.mark.parametrize("alpha", named(ALPHAS))
def test_value_equals_its_formula(shape, alpha):
    w, anchor, omega, _ = draw(shape)
    got = penalty_value(w, anchor, omega, LAMBDA, alpha)
    assert got.item() == pytest.approx(penalty_value_reference(w, anchor, omega, LAMBDA, alpha).item(), rel=1e-12)
    assert got.item() == pytest.approx(oracles.penalty_value(w, anchor, omega, LAMBDA, alpha), rel=1e-12)


@pytest.mark.parametrize("shape", named(SHAPES))
@pytest.mark.parametrize("alpha", named(ALPHAS))
@pytest.mark.parametrize("loss_scale", [1.0, 1024.0])
def test_gradient_equals_its_formula_and_is_added(shape, alpha, loss_scale):
    w, anchor, omega, task = draw(shape)
    grad = task.clone()
    add_penalty_gradient(grad, w, anchor, omega, LAMBDA, alpha, loss_scale)
    for formula in (penalty_gradient_reference, oracles.penalty_gradient):
        expected = task + loss_scale * formula(w, anchor, omega, LAMBDA, alpha)
        torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("alpha", named(ALPHAS))
def test_gradient_is_the_derivative_of_the_value(alpha):
    w, anchor, omega, _ = draw((5, 6))
    grad = torch.zeros_like(w)
    add_penalty_gradient(grad, w, anchor, omega, LAMBDA, alpha, 1)
    w.requires_grad_(True)
    penalty_value_reference(w, anchor, omega, LAMBDA, alpha).backward()
    torch.testing.assert_close(grad, w.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", named(SHAPES))
@pytest.mark.parametrize("adaptive", [False, True], ids=["sgd", "adam"])
def test_proximal_step_equals_its_formula(shape, adaptive):
    w, anchor, omega, v = draw(shape)
    correction, eps = torch.tensor(0.3, dtype=torch.float64), 1e-8
    step, a = StepSize(LR), torch.full_like(w, LR)
    if adaptive:
        step, a = StepSize(LR, v, correction, eps), LR / ((v / correction).sqrt() + eps)
    pulled = w.clone()
    proximal_step(pulled, anchor, omega, LAMBDA, step)
    for formula in (proximal_step_reference, oracles.proximal_step):
        torch.testing.assert_close(pulled, formula(w, anchor, omega, LAMBDA, a), rtol=1e-12, atol=1e-14)


def test_a_tensor_that_is_not_contiguous_gives_the_same():
    w, anchor, omega, v = draw((5, 6))
    other_w, other_anchor, other_omega, other_v = transposed(w, anchor, omega, v)
    assert not other_w.is_contiguous()

    value = penalty_value(w, anchor, omega, LAMBDA, 0.05)
    assert penalty_value(other_w, anchor, omega, LAMBDA, 0.05).item() == pytest.approx(value.item(), rel=1e-12)

    grad, other_grad = torch.zeros(5, 6, dtype=torch.float64), torch.zeros(6, 5, dtype=torch.float64).T
    add_penalty_gradient(grad, w, anchor, omega, LAMBDA, 0.05, 1)
    add_penalty_gradient(other_grad, w, anchor, other_omega, LAMBDA, 0.05, 1)
    torch.testing.assert_close(other_grad, grad, rtol=1e-12, atol=0)

    proximal_step(w, anchor, omega, LAMBDA, StepSize(LR, v))
    proximal_step(other_w, other_anchor, omega, LAMBDA, StepSize(LR, other_v))
    torch.testing.assert_close(other_w, w, rtol=1e-12, atol=0)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler on the CPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
def test_fused_kernels_equal_their_formulas_and_are_compiled_once_for_all_numbers(monkeypatch):
    """Sizes, learning rates and lambdas change from call to call; the first size, 1, and the dtypes are special."""
    monkeypatch.setattr(penalty, "_WORTH_FUSING", 1)
    compiled_before = counters["stats"]["unique_graphs"]
    for number, shape in enumerate([(1,), (5, 6), (7, 9), (700, 3)]):
        w, anchor, omega, v = draw(shape)
        ewc_lambda, lr = LAMBDA + number, LR / (1 + number)
        grad = torch.zeros_like(w)
        add_penalty_gradient(grad, w, anchor, omega, ewc_lambda, lr, 1.0 + number, fused=True)
        expected = (1 + number) * penalty_gradient_reference(w, anchor, omega, ewc_lambda, lr)
        torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-14)
        for step, a in {
            StepSize(lr): torch.full_like(w, lr),
            StepSize(lr, v, 0.3, 1e-8): lr / ((v / 0.3).sqrt() + 1e-8),
        }.items():
            pulled = w.clone()
            proximal_step(pulled, anchor, omega, ewc_lambda, step, fused=True)
            expected = proximal_step_reference(w, anchor, omega, ewc_lambda, a)
            torch.testing.assert_close(pulled, expected, rtol=1e-12, atol=1e-14)
    assert 0 < counters["stats"]["unique_graphs"] - compiled_before <= 6


@pytest.mark.parametrize("narrow", ["importance", "importance and anchor"])
def test_bfloat16_state_is_read_in_float32(narrow):
    w, anchor, omega, v = (t.float() for t in draw((5, 6)))
    omega, anchor = omega.bfloat16(), anchor.bfloat16() if "anchor" in narrow else anchor
    grad, pulled = torch.zeros_like(w), w.clone()
    add_penalty_gradient(grad, w, anchor, omega, LAMBDA, 0.05)
    proximal_step(pulled, anchor, omega, LAMBDA, StepSize(LR, v, eps=1e-8))
    wide = (w, anchor.float(), omega.float(), LAMBDA)
    torch.testing.assert_close(grad, penalty_gradient_reference(*wide, 0.05), rtol=1e-5, atol=1e-7)
    a = LR / (v.sqrt() + 1e-8)
    torch.testing.assert_close(pulled, proximal_step_reference(*wide, a), rtol=1e-5, atol=1e-7)
    value, expected = penalty_value(w, anchor, omega, LAMBDA, 0.05), penalty_value_reference(*wide, 0.05)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)


def test_importance_anchor_and_moment_are_not_written_to():
    w, anchor, omega, v = draw((5, 6))
    before = [t.clone() for t in (anchor, omega, v)]
    penalty_value(w, anchor, omega, LAMBDA, 0.05)
    add_penalty_gradient(torch.zeros_like(w), w, anchor, omega, LAMBDA, 0.05, 1)
    proximal_step(w, anchor, omega, LAMBDA, StepSize(LR, v, torch.tensor(0.5)))
    assert all(torch.equal(t, old) for t, old in zip((anchor, omega, v), before, strict=True))


def test_bfloat16_weights_are_pulled_in_float32_and_stay_bfloat16():
    w, anchor, omega, v = draw((5, 6), torch.bfloat16)
    omega, v = omega.float(), v.bfloat16()
    pulled, grad, half_grad = w.clone(), torch.zeros(5, 6), torch.zeros(5, 6, dtype=torch.bfloat16)
    a = LR / (v.float().sqrt() + 1e-8)
    expected = proximal_step_reference(w.float(), anchor.float(), omega, LAMBDA, a)

    proximal_step(pulled, anchor, omega, LAMBDA, StepSize(LR, v, eps=1e-8))
    assert pulled.dtype == torch.bfloat16
    torch.testing.assert_close(pulled, expected.bfloat16(), rtol=8e-3, atol=0)
    assert (pulled == expected.bfloat16()).float().mean() > 0.9

    add_penalty_gradient(grad, w, anchor, omega, LAMBDA, 0.05, 1)
    add_penalty_gradient(half_grad, w, anchor, omega, LAMBDA, 0.05, 1)
    torch.testing.assert_close(grad, penalty_gradient_reference(w.float(), anchor.float(), omega, LAMBDA, 0.05))
    assert torch.equal(half_grad, grad.bfloat16())

    value = penalty_value(w, anchor, omega, LAMBDA, 0.05)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(oracles.penalty_value(w, anchor, omega, LAMBDA, 0.05), rel=1e-5)


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


@pytest.mark.parametrize("case", named(NOTHING))
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
    assert not math.isnan(penalty_value(w, w, torch.full((3,), 10.0), 1e38, 0).item())
    add_penalty_gradient(grad, w, w, torch.full((3,), 10.0), 1e38, 0, 1)
    assert grad.tolist() == [0, 0, 0]

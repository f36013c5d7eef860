"""The penalty's passes over memory against their formulas."""

import shutil

import oracles
import pytest
import torch
from drawn_weights import draw
from torch._dynamo.utils import counters
from torch._inductor import metrics

from ewc_hf.penalty import kernels
from ewc_hf.penalty.kernels import (
    add_penalty_gradient,
    penalty_gradient_reference,
    penalty_value,
    penalty_value_reference,
    proximal_step,
    proximal_step_reference,
)
from ewc_hf.penalty.step_size import StepSize

LAMBDA, LR = 30.0, 0.1
SHAPES = {"one": (1,), "row": (7,), "matrix": (5, 6), "cube": (2, 3, 4)}
ALPHAS = {"plain": 0.0, "stabilized": 0.05}

pytestmark = pytest.mark.usefixtures("small_chunks")


def named(cases):
    return [pytest.param(case, id=name) for name, case in cases.items()]


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


def fused_gradient(w, anchor, omega, v, ewc_lambda, lr):
    grad = torch.zeros_like(w)
    add_penalty_gradient(grad, w, anchor, omega, ewc_lambda, lr, 3.0, fused=True)
    return grad, 3 * penalty_gradient_reference(w, anchor, omega, ewc_lambda, lr)


def fused_step_of_sgd(w, anchor, omega, v, ewc_lambda, lr):
    pulled = w.clone()
    proximal_step(pulled, anchor, omega, ewc_lambda, StepSize(lr), fused=True)
    return pulled, proximal_step_reference(w, anchor, omega, ewc_lambda, torch.full_like(w, lr))


def fused_step_of_adam(w, anchor, omega, v, ewc_lambda, lr):
    pulled = w.clone()
    proximal_step(pulled, anchor, omega, ewc_lambda, StepSize(lr, v, 0.3, 1e-8), fused=True)
    return pulled, proximal_step_reference(w, anchor, omega, ewc_lambda, lr / ((v / 0.3).sqrt() + 1e-8))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler on the CPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("fused", [fused_gradient, fused_step_of_sgd, fused_step_of_adam])
def test_a_fused_kernel_equals_its_formula_and_is_compiled_once_for_all_numbers(monkeypatch, fused):
    """Sizes, learning rates and lambdas change from call to call."""
    monkeypatch.setattr(kernels, "_WORTH_FUSING", 30)
    graphs, generated = counters["stats"]["unique_graphs"], metrics.generated_kernel_count
    for number, shape in enumerate([(7,), (5, 6), (7, 9), (700, 3)]):
        got, expected = fused(*draw(shape), LAMBDA + number, LR / (1 + number))
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)
        compiled = counters["stats"]["unique_graphs"] - graphs
        assert compiled == (0 if shape == (7,) else 1), "what is not worth fusing is not compiled"
    assert metrics.generated_kernel_count - generated == 1, "all of it is one loop"


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


WIDEST = {
    "all in bfloat16": (torch.bfloat16, torch.bfloat16, torch.float32),
    "importance in float64": (torch.float32, torch.float64, torch.float64),
}


@pytest.mark.parametrize(("dtype", "state_dtype", "computed_in"), WIDEST.values(), ids=WIDEST)
def test_a_value_is_computed_in_the_widest_dtype_and_no_less_than_float32(dtype, state_dtype, computed_in):
    w, anchor, omega, _ = draw((50, 60), dtype)
    omega = omega.to(state_dtype)
    value = penalty_value(w, anchor, omega, LAMBDA, 0.05)
    assert value.dtype == computed_in
    expected = penalty_value_reference(w.double(), anchor.double(), omega.double(), LAMBDA, 0.05)
    torch.testing.assert_close(value.double(), expected, rtol=4 * torch.finfo(computed_in).eps, atol=0)


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

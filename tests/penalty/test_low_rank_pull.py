"""The proximal steps of adapters, against slow solvers."""

import pytest
import torch
from adapted_models import LAMBDA, adapted, penalty_of
from small_runs import LR, small_model, spread_consolidation, weights
from torch import optim

from ewc_hf import Coupling
from ewc_hf.engines import adapted_matrices
from ewc_hf.penalty.low_rank import _solved

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT asks for it


def moved_once(model, kind):
    """An optimizer that has taken a step of drawn gradients."""
    optimizer = kind([p for p in model.parameters() if p.requires_grad], lr=LR)
    generator = torch.Generator().manual_seed(4)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64) if p.requires_grad else None
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", [optim.SGD, optim.AdamW])
@pytest.mark.parametrize("ewc_lambda", [LAMBDA, 1e30])
@pytest.mark.parametrize("half", ["b", "a"])
def test_the_pull_is_the_minimum_over_each_row_of_b_and_column_of_a(kind, ewc_lambda, half):
    """The proximal objective, quadratic, solved densely from its gradient and Hessian by autograd."""
    consolidation, model = spread_consolidation(small_model()), adapted(small_model())
    for name, p in model.named_parameters():
        p.requires_grad_(f"lora_{half.upper()}" in name)  # the other half stays as it is
    optimizer = moved_once(model, kind)
    matrix = adapted_matrices(model)["transformer.h.0.mlp.c_proj.weight"]
    (adapter,) = matrix.adapters
    b, a, omega = adapter.b.detach().clone(), adapter.a.detach().clone(), consolidation.importance[matrix.name].T
    pulled, before, other = (adapter.b, b, a) if half == "b" else (adapter.a.T, a.T, b.T)
    omega = omega if half == "b" else omega.T
    step = torch.full_like(before, LR)
    if kind is optim.AdamW:
        second = optimizer.state[adapter.b if half == "b" else adapter.a]["exp_avg_sq"]
        step = LR / (((second if half == "b" else second.T) / (1 - 0.999)).sqrt() + 1e-8)
    penalty_of(model, consolidation, Coupling.DECOUPLED, ewc_lambda, 0.0, optimizer).pull(optimizer, None, None)

    def objective(row, index):
        change = adapter.scale * row @ other
        proximal = ((row - before[index]) ** 2 / (2 * step[index])).sum()
        return (omega[index] * change**2).sum() / 2 + proximal / ewc_lambda

    for index in range(len(before)):
        start = before[index].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(start, index), start)
        hessian = torch.autograd.functional.hessian(lambda row, index=index: objective(row, index), before[index])
        minimum = before[index] - torch.linalg.lstsq(hessian, gradient[:, None]).solution[:, 0]
        torch.testing.assert_close(pulled[index].detach(), minimum, rtol=1e-7, atol=1e-9)


def test_b_is_pulled_first_and_then_a():
    consolidation, model, only_b = spread_consolidation(small_model()), adapted(small_model()), adapted(small_model())
    before = weights(model)
    for each in (model, only_b):
        optimizer = moved_once(each, optim.SGD)
        stepped = weights(each)
        if each is only_b:
            for name, p in each.named_parameters():
                p.grad = None if "lora_A" in name else p.grad
        penalty_of(each, consolidation, Coupling.DECOUPLED, LAMBDA, 0.0, optimizer).pull(optimizer, None, None)
    for name, p in weights(model).items():
        assert not torch.equal(p, stepped[name]) and not torch.equal(p, before[name])
        if "lora_B" in name:
            torch.testing.assert_close(p, weights(only_b)[name], rtol=0, atol=0)


@pytest.mark.parametrize("ewc_lambda", [1.0, 1e10, 1e30])
def test_rows_of_little_importance_are_pulled_at_any_lambda(ewc_lambda):
    """One number of each row, so that no system has full rank."""
    consolidation, model = spread_consolidation(small_model()), adapted(small_model())
    for omega in consolidation.importance.values():
        omega.zero_()
        omega.flatten(1).T[0].fill_(3.0) if omega.dim() > 1 else omega.fill_(0.0)
    optimizer = moved_once(model, optim.SGD)
    before = {name: matrix.change(slice(None), torch.float64) for name, matrix in adapted_matrices(model).items()}
    penalty_of(model, consolidation, Coupling.DECOUPLED, ewc_lambda, 0.0, optimizer).pull(optimizer, None, None)
    for name, matrix in adapted_matrices(model).items():
        held, change = consolidation.importance[name].T > 0, matrix.change(slice(None), torch.float64)
        assert change.isfinite().all() and change[held].norm() < before[name][held].norm()
        assert ewc_lambda < 1e10 or change[held].abs().max() < 1e-6


@pytest.mark.parametrize("strength", [1.0, 1e10, 1e20, 1e30])
def test_systems_of_rank_one_are_solved_at_any_strength(strength):
    """`(1 + c v v^T)^{-1} c v = c v / (1 + c v^T v)`; past 1e16 the last digits of a pivot are larger than the 1."""
    v_NR = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solved_NR = _solved(strength * v_NR[:, :, None] * v_NR[:, None, :], strength * v_NR)
    expected_NR = strength * v_NR / (1 + strength * v_NR.square().sum(1, keepdim=True))
    torch.testing.assert_close(solved_NR, expected_NR, rtol=0, atol=0.05)

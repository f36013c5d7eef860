"""`a` against what torch's own optimizers do."""

from dataclasses import replace

import oracles
import pytest
import torch
from conftest import VOCAB
from torch import nn, optim
from transformers import Adafactor

from ewc_hf.engines.parameters import LocalParameters
from ewc_hf.penalty.step_size import require_readable_step, step_size

LR, BETA2, EPS, STEPS = 0.01, 0.95, 1e-3, 6


def named(cases):
    return [pytest.param(case, id=name) for name, case in cases.items()]


ADAMS = {
    "Adam": (optim.Adam, {}),
    "AdamW": (optim.AdamW, {"weight_decay": 0.0}),
    "AdamW fused": (optim.AdamW, {"weight_decay": 0.0, "fused": True}),
    "AdamW foreach": (optim.AdamW, {"weight_decay": 0.0, "foreach": True}),
    "Adam amsgrad": (optim.Adam, {"amsgrad": True}),
    "AdamW amsgrad fused": (optim.AdamW, {"weight_decay": 0.0, "amsgrad": True, "fused": True}),
    "Adam with a tensor lr": (optim.Adam, {"lr": torch.tensor(LR, dtype=torch.float64)}),
}
SGDS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "dampening": {"momentum": 0.8, "dampening": 0.3},
    "dampening without momentum": {"dampening": 0.3},
    "nesterov": {"momentum": 0.9, "nesterov": True},
}


def one_weight(build, **options):
    module = nn.Linear(4, 3, bias=False).double()
    return module, build(module.parameters(), **options)


def take(module, optimizer, gradient):
    """Step once; returns how far the weight moved."""
    before = module.weight.detach().clone()
    module.weight.grad = gradient.clone()
    optimizer.step()
    return before - module.weight.detach()


def a_of(module, optimizer):
    """`a` of the module's only parameter, spelled out."""
    (parameter,) = LocalParameters(module, optimizer)
    step = step_size(optimizer, parameter)
    if step.second_moment is None:
        return step.numerator
    return step.numerator / ((step.second_moment / step.bias_correction).sqrt() + step.eps)


def gradients(decreasing=True):
    """Large first, so that the maximum that amsgrad keeps is not the latest mean."""
    draws = torch.Generator().manual_seed(0)
    return [
        torch.randn(3, 4, generator=draws, dtype=torch.float64) * (0.2**step if decreasing else 1)
        for step in range(STEPS)
    ]


@pytest.mark.parametrize("case", named(ADAMS))
def test_adam_equals_the_step_replayed_by_hand(case):
    build, options = case
    module, optimizer = one_weight(build, **{"lr": LR, "betas": (0.9, BETA2), "eps": EPS, **options})
    seen = gradients()
    for steps, gradient in enumerate(seen, 1):
        take(module, optimizer, gradient)
        expected = oracles.adam_step(seen[:steps], LR, BETA2, EPS, options.get("amsgrad", False))
        torch.testing.assert_close(a_of(module, optimizer), expected, rtol=1e-10, atol=0)


def test_amsgrad_differs_in_these_cases():
    plain, amsgrad = (oracles.adam_step(gradients(), LR, BETA2, EPS, choice) for choice in (False, True))
    assert (amsgrad < 0.99 * plain).all()


@pytest.mark.parametrize("case", named(ADAMS))
def test_adam_moves_by_a_per_unit_of_a_constant_gradient(case):
    """Under a constant gradient the mean of gradients is the gradient itself, so the move is `a` times it."""
    build, options = case
    module, optimizer = one_weight(build, **{"lr": LR, "betas": (0.9, BETA2), "eps": EPS, **options})
    gradient = gradients()[0]
    for _ in range(STEPS):
        moved = take(module, optimizer, gradient)
        torch.testing.assert_close(a_of(module, optimizer) * gradient, moved, rtol=1e-9, atol=0)


@pytest.mark.parametrize("options", named(SGDS))
def test_sgd_moves_by_a_per_unit_of_a_constant_gradient(options):
    module, optimizer = one_weight(optim.SGD, lr=LR, **options)
    gradient = gradients()[0]
    for _ in range(300):
        moved = take(module, optimizer, gradient)
    momentum = options.get("momentum", 0.0)
    dampening = options.get("dampening", 0.0)
    assert a_of(module, optimizer) == pytest.approx(oracles.sgd_step(LR, momentum, dampening), rel=1e-10)
    torch.testing.assert_close(a_of(module, optimizer) * gradient, moved, rtol=1e-9, atol=0)


@pytest.mark.parametrize("build", [optim.SGD, optim.AdamW])
def test_the_learning_rate_is_that_of_the_group_at_the_moment(build):
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    both = nn.Sequential(first, second)
    optimizer = build([{"params": first.parameters(), "lr": 0.5}, {"params": second.parameters(), "lr": 0.25}])
    for p in both.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()

    def numerators():
        return [step_size(optimizer, parameter).numerator for parameter in LocalParameters(both, optimizer)]

    assert numerators() == [0.5, 0.25]
    optimizer.param_groups[1]["lr"] = 0.125
    assert numerators() == [0.5, 0.125]


def test_a_beta2_of_zero_means_the_latest_gradient():
    module, optimizer = one_weight(optim.Adam, lr=LR, betas=(0.9, 0.0), eps=EPS)
    gradient = gradients()[0]
    take(module, optimizer, gradient)
    torch.testing.assert_close(a_of(module, optimizer), LR / (gradient.abs() + EPS), rtol=1e-10, atol=0)


READABLE = [optim.SGD, optim.Adam, optim.AdamW]
OTHERS = [Adafactor, optim.RMSprop, optim.Adagrad, optim.NAdam, optim.Adamax]


@pytest.mark.parametrize("build", READABLE)
def test_readable_optimizers_pass(build):
    require_readable_step(build([nn.Parameter(torch.ones(VOCAB))]))


@pytest.mark.parametrize("build", OTHERS)
def test_other_optimizers_are_refused(build):
    optimizer = build([nn.Parameter(torch.ones(VOCAB))])
    with pytest.raises(
        ValueError, match=rf"SGD, Adam or AdamW.*got {build.__module__}\.{build.__name__}; use ewc_coupling='loss'"
    ):
        require_readable_step(optimizer)


class FusedAdam(optim.Optimizer):
    """As apex has one, whose state is not DeepSpeed's."""

    def __init__(self, params):
        optim.Optimizer.__init__(self, params, {"lr": LR})


@pytest.mark.parametrize("build", [FusedAdam, Adafactor])
def test_an_optimizer_is_known_by_its_module_not_by_its_name(build):
    _, optimizer = one_weight(build)
    with pytest.raises(ValueError, match=rf"got {build.__module__}\.{build.__name__}; use ewc_coupling='loss'"):
        require_readable_step(optimizer)


@pytest.mark.parametrize(("name", "module"), [("DeepSpeedCPUAdam", "cpu_adam"), ("FusedAdam", "fused_adam")])
def test_deepspeeds_adam_is_known_and_its_other_optimizers_are_not(name, module):
    """By name: building the real ones takes a compiler, and minutes."""
    adam, lion = (
        type(kind, (optim.Optimizer,), {"__module__": f"deepspeed.ops.adam.{module}", "__init__": FusedAdam.__init__})
        for kind in (name, "FusedLion")
    )
    require_readable_step(one_weight(adam)[1])
    with pytest.raises(ValueError, match=rf"got deepspeed.ops.adam.{module}.FusedLion; use"):
        require_readable_step(one_weight(lion)[1])


class OnAGpu(torch.Tensor):
    """A number that says that it is elsewhere, and that nobody may wait for."""

    is_cpu = False

    def __int__(self):
        raise AssertionError("waited for")

    __float__ = item = __int__


def test_a_step_that_is_counted_on_a_gpu_is_not_waited_for():
    module, optimizer = one_weight(optim.Adam, lr=LR, betas=(0.9, BETA2), eps=EPS)
    for gradient in gradients():
        take(module, optimizer, gradient)
    (parameter,) = LocalParameters(module, optimizer)
    counted = {**parameter.state, "step": parameter.state["step"].as_subclass(OnAGpu)}
    found = step_size(optimizer, replace(parameter, state=counted)).bias_correction
    expected = step_size(optimizer, parameter).bias_correction
    torch.testing.assert_close(found.as_subclass(torch.Tensor), torch.tensor(expected))

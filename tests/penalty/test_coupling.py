"""Terms coupled to a model and its optimizer."""

import oracles
import pytest
import torch
from changed_consolidations import changed, renamed
from conftest import consolidation_of, gpt2
from torch import optim
from transformers import Adafactor

from ewc_hf import Coupling
from ewc_hf.engines import LocalParameters
from ewc_hf.penalty import CoupledPenalty, Diagonal

LAMBDA, ALPHA, LR = 5.0, 0.1, 0.1
BIAS = "transformer.ln_f.bias"


def scaler_of(scale):
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    scaler.scale(torch.zeros(1))
    return scaler


def coupled(model, coupling, optimizer, alphas=(ALPHA,), num_terms=1):
    """A consolidation whose anchor is away from the weights, coupled as one term or as several that share it out."""
    consolidation = consolidation_of(model)
    consolidation = changed(consolidation, anchor={k: w + 0.1 for k, w in consolidation.anchor.items()})
    parameters, names = LocalParameters(model, optimizer), list(consolidation.importance)
    shares = [{name: name for name in names[number::num_terms]} for number in range(num_terms)]
    terms = [Diagonal(renamed(consolidation, share), parameters) for share in shares]
    return consolidation, CoupledPenalty(terms, parameters, coupling, LAMBDA, alphas, predicts_forgetting=True)


@pytest.mark.parametrize("build", [Adafactor, optim.RMSprop, optim.Adagrad])
def test_decoupled_refuses_an_optimizer_whose_step_cannot_be_read(model, build):
    optimizer = build(model.parameters())
    with pytest.raises(
        ValueError, match=rf"decoupled.*got {build.__module__}\.{build.__name__}; use ewc_coupling='loss'"
    ):
        coupled(model, Coupling.DECOUPLED, optimizer)
    coupled(model, Coupling.LOSS, optimizer)


def test_loss_adds_each_groups_gradient_once(model):
    bias, rest = model.get_parameter(BIAS), [p for name, p in model.named_parameters() if name != BIAS]
    optimizer = optim.SGD([{"params": rest}, {"params": [bias]}], lr=LR)
    consolidation, penalty = coupled(model, Coupling.LOSS, optimizer, alphas=(0.0, ALPHA))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model.transformer.wpe.weight.grad = None
    penalty.add_gradient(scaler_of(8.0))
    for name, p in model.named_parameters():
        if name != "transformer.wpe.weight":
            alpha = ALPHA if name == BIAS else 0.0
            anchor, omega = consolidation.anchor[name], consolidation.importance[name]
            pull = oracles.penalty_gradient(p, anchor, omega, LAMBDA, alpha)
            torch.testing.assert_close(p.grad, 1 + 8 * pull, rtol=1e-12, atol=0)
    assert model.transformer.wpe.weight.grad is None


@pytest.mark.parametrize("skipped", [False, True], ids=["stepped", "skipped for inf"])
def test_decoupled_pulls_what_has_a_gradient(model, skipped):
    """`found_inf` is what a `GradScaler` leaves on a fused optimizer, whose `step` it calls either way."""
    optimizer = optim.SGD(model.parameters(), lr=LR, fused=True)
    consolidation, penalty = coupled(model, Coupling.DECOUPLED, optimizer)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    model.transformer.wpe.weight.grad = None
    optimizer.found_inf = torch.tensor(float(skipped))
    optimizer.register_step_post_hook(penalty.pull)
    optimizer.step()
    for name, p in model.named_parameters():
        expected = before[name]
        if not skipped and name != "transformer.wpe.weight":
            omega, a = consolidation.importance[name], torch.full_like(p, LR)
            expected = oracles.proximal_step(expected, consolidation.anchor[name], omega, LAMBDA, a)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("coupling", Coupling)
def test_each_coupling_keeps_out_of_the_others_way(model, coupling):
    optimizer = optim.SGD(model.parameters(), lr=LR)
    _, penalty = coupled(model, coupling, optimizer)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    if coupling is Coupling.LOSS:
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        penalty.pull(optimizer, (), {})
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    else:
        penalty.add_gradient()
        assert all((p.grad == 0).all() for p in model.parameters())


@pytest.mark.parametrize("coupling", Coupling)
def test_logged_values(model, coupling):
    """Only coupling `loss` has alphas, one a group."""
    bias, rest = model.get_parameter(BIAS), [p for name, p in model.named_parameters() if name != BIAS]
    optimizer = optim.SGD([{"params": rest}, {"params": [bias]}], lr=LR)
    consolidation, penalty = coupled(model, coupling, optimizer, alphas=(ALPHA, 100 * ALPHA))

    def total(ewc_lambda, alpha):
        return sum(
            oracles.penalty_value(
                p, consolidation.anchor[name], consolidation.importance[name], ewc_lambda,
                100 * alpha if name == BIAS else alpha,
            )
            for name, p in model.named_parameters()
        )  # fmt: skip

    alpha = ALPHA if coupling is Coupling.LOSS else 0.0
    expected = {"ewc_penalty": total(LAMBDA, alpha), "ewc_predicted_forgetting": total(1.0, 0.0)}
    assert penalty.values() == pytest.approx(expected, rel=1e-10)


def test_forgetting_is_predicted_on_request_only(model):
    parameters = LocalParameters(model, optim.SGD(model.parameters(), lr=LR))
    penalty = CoupledPenalty(
        [Diagonal(consolidation_of(model), parameters)], parameters, Coupling.LOSS, LAMBDA, [ALPHA]
    )
    assert penalty.values() == {"ewc_penalty": 0.0}


@pytest.mark.parametrize("coupling", Coupling)
def test_terms_that_share_out_the_parameters_are_as_one(coupling):
    results = []
    for num_terms in (1, 2):
        model = gpt2()
        optimizer = optim.AdamW(model.parameters(), lr=LR)
        _, penalty = coupled(model, coupling, optimizer, num_terms=num_terms)
        optimizer.register_step_post_hook(penalty.pull)
        for p in model.parameters():
            p.grad = torch.full_like(p, 0.5)
        penalty.add_gradient()
        optimizer.step()
        results.append(([t for p in model.parameters() for t in (p.grad, p)], penalty.values()))
    (one, logged_of_one), (two, logged_of_two) = results
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert logged_of_one == logged_of_two
    assert logged_of_one["ewc_penalty"] > 0

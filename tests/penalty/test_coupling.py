"""A consolidation coupled to a model and its optimizer."""

import logging

import oracles
import pytest
import torch
from conftest import consolidation_of, gpt2
from ewc_hf.coupling import CoupledPenalty, require_matching_model
from ewc_hf.params import LocalParameters
from torch import optim
from transformers import Adafactor

from ewc_hf import Consolidation, Coupling

LAMBDA, ALPHA, LR = 5.0, 0.1, 0.1
BIAS = "transformer.ln_f.bias"


def changed(consolidation, importance=None, anchor=None, **metadata):
    return Consolidation(
        {**consolidation.importance, **(importance or {})},
        {**consolidation.anchor, **(anchor or {})},
        {**consolidation.metadata, **metadata},
    )


def renamed(consolidation, names):
    """Keep the parameters that `names` has a new name for."""
    return Consolidation(
        {new: consolidation.importance[old] for old, new in names.items()},
        {new: consolidation.anchor[old] for old, new in names.items()},
        consolidation.metadata,
    )


def test_a_matching_model_passes_without_a_word(model, caplog):
    require_matching_model(consolidation_of(model), model)
    assert not caplog.records


def test_a_model_of_other_names_is_refused(model):
    other = renamed(consolidation_of(model), {name: f"base.{name}" for name, _ in model.named_parameters()})
    with pytest.raises(ValueError, match=r"such as 'base\.transformer\..*', got only others, such as 'transformer\."):
        require_matching_model(other, model)


def test_a_model_of_another_shape_is_refused(model):
    other = changed(consolidation_of(model), importance={BIAS: torch.ones(17)}, anchor={BIAS: torch.ones(17)})
    with pytest.raises(ValueError, match=rf"expected '{BIAS}' of shape \(17,\) .*, got \(16,\); estimate"):
        require_matching_model(other, model)


def test_weights_without_importance_are_named_in_a_warning(model, caplog):
    names = {name: name for name, _ in model.named_parameters() if name not in (BIAS, "transformer.wpe.weight")}
    with caplog.at_level(logging.WARNING):
        require_matching_model(renamed(consolidation_of(model), names), model)
    (record,) = caplog.records
    assert f"2 trainable parameters have no importance and move freely, such as '{BIAS}'" in record.getMessage()


def test_importance_of_frozen_weights_is_no_matter(model, caplog):
    consolidation = consolidation_of(model)
    model.transformer.wpe.weight.requires_grad_(False)
    require_matching_model(consolidation, model)
    assert not caplog.records


def scaler_of(scale):
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    scaler.scale(torch.zeros(1))
    return scaler


def coupled(model, coupling, optimizer, alphas=(ALPHA,), anchor=None):
    consolidation = consolidation_of(model)
    consolidation = changed(consolidation, anchor={k: w + 0.1 for k, w in consolidation.anchor.items()})
    return consolidation, CoupledPenalty(consolidation, LocalParameters(model, optimizer), coupling, LAMBDA, alphas)


@pytest.mark.parametrize("build", [Adafactor, optim.RMSprop, optim.Adagrad])
def test_decoupled_refuses_an_optimizer_whose_step_cannot_be_read(model, build):
    optimizer = build(model.parameters())
    with pytest.raises(ValueError, match=rf"decoupled.*got {build.__name__}; use ewc_coupling='loss'"):
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
    optimizer = optim.SGD(model.parameters(), lr=0.0)
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
    consolidation, penalty = coupled(model, coupling, optim.SGD(model.parameters(), lr=LR))

    def total(ewc_lambda, alpha):
        return sum(
            oracles.penalty_value(p, consolidation.anchor[name], consolidation.importance[name], ewc_lambda, alpha)
            for name, p in model.named_parameters()
        )

    alpha = ALPHA if coupling is Coupling.LOSS else 0.0
    expected = {"ewc_penalty": total(LAMBDA, alpha), "ewc_predicted_forgetting": total(1.0, 0.0)}
    assert penalty.values() == pytest.approx(expected, rel=1e-10)


def test_forgetting_is_predicted_in_nats_only(model):
    mas = changed(consolidation_of(model), unit="squared output norm per token")
    penalty = CoupledPenalty(
        mas, LocalParameters(model, optim.SGD(model.parameters(), lr=LR)), Coupling.LOSS, LAMBDA, [ALPHA]
    )
    assert penalty.values() == {"ewc_penalty": 0.0}


def test_bfloat16_weights_start_without_a_penalty_and_with_a_warning(caplog):
    """Importance and anchor come from a float64 model; the anchor is rounded as the weights were."""
    consolidation, half = consolidation_of(gpt2()), gpt2().bfloat16()
    type(logging.getLogger("ewc_hf.coupling")).warning_once.cache_clear()
    parameters = LocalParameters(half, optim.SGD(half.parameters(), lr=LR))
    penalty = CoupledPenalty(consolidation, parameters, Coupling.LOSS, LAMBDA, [ALPHA])
    assert penalty.values()["ewc_penalty"] == 0
    assert "The weights are torch.bfloat16" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_bfloat16_state_keeps_the_anchor_where_it_loses_nothing(dtype):
    """The anchor of a checkpoint that was stored in bfloat16 does, another one stays as it is."""
    model = gpt2().to(dtype).float()
    parameters = LocalParameters(model, optim.SGD(model.parameters(), lr=LR))
    penalty = CoupledPenalty(consolidation_of(model), parameters, Coupling.LOSS, LAMBDA, [ALPHA], bfloat16=True)
    assert {omega.dtype for omega in penalty.importance.values()} == {torch.bfloat16}
    assert penalty.anchor["transformer.wte.weight"].dtype == dtype
    assert penalty.values()["ewc_penalty"] == 0


@pytest.mark.parametrize("coupling", Coupling)
def test_an_offloaded_state_gives_the_same(coupling):
    """On the CPU the host's memory is the device's; that nothing is moved on a GPU cannot be seen here."""
    moved = []
    for offload in (False, True):
        model = gpt2().float()
        state, optimizer = consolidation_of(model), optim.SGD(model.parameters(), lr=LR)
        for p in model.parameters():
            p.data += 0.1
            p.grad = torch.ones_like(p)
        penalty = CoupledPenalty(state, LocalParameters(model, optimizer), coupling, LAMBDA, [ALPHA], offload=offload)
        penalty.add_gradient()
        penalty.pull(optimizer, (), {})
        moved.append([p.grad + p for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*moved, strict=True))

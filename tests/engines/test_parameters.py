"""Names and local parts of parameters."""

import pytest
import torch
from conftest import gpt2
from torch import nn

from ewc_hf.engines.parameters import LocalParameters, named_parameters, trainable_parameters, unwrap


def compiled(model):
    """Wrapped only: nothing is compiled before the first forward pass."""
    return torch.compile(model, backend="eager")


WRAPPERS = {
    "bare": lambda model: model,
    "DataParallel": nn.DataParallel,
    "compiled": compiled,
    "compiled DataParallel": lambda model: compiled(nn.DataParallel(model)),
    "DataParallel of a compiled model": lambda model: nn.DataParallel(compiled(model)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_names_are_those_of_the_unwrapped_model(model, wrap):
    wrapped = wrap(model)
    assert unwrap(wrapped) is model
    assert trainable_parameters(wrapped) == dict(model.named_parameters())


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_are_held_once(tied):
    model = gpt2(tied)
    names = trainable_parameters(model)
    assert ("lm_head.weight" in names) is not tied
    assert len({p.data_ptr() for p in names.values()}) == len(names)


def test_a_frozen_parameter_is_not_held(model):
    model.transformer.wpe.weight.requires_grad_(False)
    assert "transformer.wpe.weight" not in trainable_parameters(model)
    assert "transformer.wpe.weight" in named_parameters(model)


def test_a_model_without_a_trainable_parameter_is_refused(model):
    with pytest.raises(ValueError, match=r"requires_grad=False; call `model\.requires_grad_"):
        trainable_parameters(model.requires_grad_(False))


@pytest.fixture
def stepped():
    """Two weights in two groups, one frozen and one that the optimizer does not know; one of them never stepped."""
    module = nn.ModuleDict({name: nn.Linear(2, 2, bias=False) for name in ("a", "b", "frozen", "unknown")})
    module["frozen"].requires_grad_(False)
    optimizer = torch.optim.Adam(
        [
            {"params": [module["b"].weight], "lr": 0.5},
            {"params": [module["a"].weight, module["frozen"].weight], "lr": 0.25},
        ]
    )
    module["a"].weight.grad = torch.ones(2, 2)
    optimizer.step()
    return module, optimizer


def test_local_parameters_lend_name_group_gradient_and_state(stepped):
    module, optimizer = stepped
    local = {p.name: p for p in LocalParameters(module, optimizer)}
    assert local.keys() == {"a.weight", "b.weight"}
    a, b = local["a.weight"], local["b.weight"]
    assert (a.group_index, a.group["lr"]) == (1, 0.25)
    assert (b.group_index, b.group["lr"]) == (0, 0.5)
    assert a.grad is module["a"].weight.grad
    assert b.grad is None
    assert a.state["exp_avg_sq"] is optimizer.state[module["a"].weight]["exp_avg_sq"]
    assert b.state == {}
    assert module["b"].weight not in optimizer.state


def test_writes_to_a_local_weight_reach_the_model(stepped):
    module, optimizer = stepped
    for p in LocalParameters(nn.DataParallel(module), optimizer):
        assert not p.weight.requires_grad
        p.weight.fill_(7)
    assert (module["a"].weight == 7).all()
    assert (module["b"].weight == 7).all()


def test_local_parameters_see_what_came_after_them(stepped):
    module, optimizer = stepped
    local = LocalParameters(module, optimizer)
    module["b"].weight.grad = torch.full((2, 2), 3.0)
    optimizer.param_groups[0]["lr"] = 0.125
    (b,) = [p for p in local if p.name == "b.weight"]
    assert b.grad is module["b"].weight.grad
    assert b.group["lr"] == 0.125

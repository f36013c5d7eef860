"""Which parameters a consolidation protects, and which model it belongs to."""

import logging

import pytest
import torch
from changed_consolidations import changed, renamed
from conftest import consolidation_of
from torch import nn, optim

from ewc_hf.engines import LocalParameters
from ewc_hf.penalty import require_matching_model
from ewc_hf.penalty.protected import protected_parameters

BIAS = "transformer.ln_f.bias"


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


def test_entries_that_the_model_lacks_are_named_in_a_warning(model, caplog):
    """An untied head's importance says nothing of a tied one."""
    names = {name: name for name, _ in model.named_parameters()} | {BIAS: BIAS}
    both = renamed(consolidation_of(model), names)
    both.importance["lm_head.weight"] = both.anchor["lm_head.weight"] = torch.ones(1)
    with caplog.at_level(logging.WARNING):
        require_matching_model(both, model)
    (record,) = caplog.records
    assert "1 parameters of the consolidation are not in the model and are not held, such as 'lm_head.weight'" in (
        record.getMessage()
    )


def test_importance_of_frozen_weights_is_no_matter(model, caplog):
    consolidation = consolidation_of(model)
    model.transformer.wpe.weight.requires_grad_(False)
    require_matching_model(consolidation, model)
    assert not caplog.records


def test_frozen_weights_are_protected_and_the_optimizers_are_stepped(model):
    free, frozen = model.get_parameter(BIAS), model.transformer.wpe.weight.requires_grad_(False)
    names = {name: name for name, p in model.named_parameters() if p is not free}
    protected = protected_parameters(renamed(consolidation_of(model), names), nn.DataParallel(model))
    assert protected == {name: model.get_parameter(name) for name in names}
    assert "transformer.wpe.weight" in protected
    assert LocalParameters(model, optim.SGD([free, frozen, model.transformer.wte.weight])).names == {
        BIAS,
        "transformer.wte.weight",
    }

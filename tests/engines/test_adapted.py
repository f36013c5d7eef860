"""Which matrices adapters change, by which names; and changes of another form, which are refused."""

import pytest
from adapted_models import CONV, adapted, llama
from peft import LoHaConfig, LoraConfig, get_peft_model
from small_runs import small_model, spread_consolidation

from ewc_hf.engines import named_parameters
from ewc_hf.penalty import require_matching_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT asks for it


def test_names_are_those_without_adapters():
    model = adapted(small_model(), modules_to_save=["ln_f"])
    names = named_parameters(model)
    assert {name for name in names if "lora_" not in name and "original_module" not in name} == set(
        dict(small_model().named_parameters())
    )
    assert names["transformer.ln_f.bias"].requires_grad
    assert "transformer.h.0.attn.c_attn.lora_A.default.weight" in names


REFUSED = {
    "DoRA": ({"use_dora": True}, "expected plain LoRA, .*, got DoraLinearVariant"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "expected adapters beside untouched base weights, got .*pissa"),
    "a bias of B": ({"lora_bias": True}, "expected a frozen weight, and adapters .*lora_B.default.bias"),
}


@pytest.mark.filterwarnings("ignore:.*orth:UserWarning")
@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_changes_of_another_form_are_refused(options, message):
    model = get_peft_model(small_model().float(), LoraConfig(r=2, target_modules=CONV, fan_in_fan_out=True, **options))
    with pytest.raises(ValueError, match=message):
        require_matching_model(spread_consolidation(small_model()), model)


def test_other_adapters_and_trained_weights_beneath_adapters_are_refused():
    other = get_peft_model(llama(), LoHaConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(ValueError, match=r"expected a frozen weight, and adapters .* at 'base_model.*hada"):
        require_matching_model(spread_consolidation(llama()), other)
    model = adapted(small_model())
    model.base_model.model.transformer.h[0].attn.c_attn.base_layer.weight.requires_grad_(True)
    with pytest.raises(
        ValueError, match=r"expected a frozen weight.*c_attn', of which 'base_layer.weight' is trained"
    ):
        require_matching_model(spread_consolidation(small_model()), model)


def test_an_importance_of_another_shape_is_refused():
    consolidation, model = spread_consolidation(small_model()), adapted(small_model())
    name = "transformer.h.0.attn.c_attn.weight"
    consolidation.importance[name] = consolidation.importance[name].T
    with pytest.raises(
        ValueError, match=rf"expected '{name}' of shape \(24, 8\) as in the consolidation, got \(8, 24\)"
    ):
        require_matching_model(consolidation, model)


def test_adapters_in_use_that_are_frozen_are_refused():
    model = adapted(llama(), target_modules=["q_proj"])
    for name, p in model.named_parameters():
        p.requires_grad_("layernorm" in name)
    with pytest.raises(ValueError, match=r"expected adapters in use to be trained, got '.*lora_B.*' frozen"):
        require_matching_model(spread_consolidation(llama()), model)


@pytest.mark.filterwarnings("ignore:.*tie:UserWarning")  # PEFT tells it
def test_of_layers_that_share_a_weight_one_is_adapted():
    model = adapted(small_model(), target_modules=["wte", "lm_head"], fan_in_fan_out=False)
    with pytest.raises(ValueError, match=r"expected one adapted layer a weight, got another of 'transformer.wte"):
        require_matching_model(spread_consolidation(small_model()), model)


@pytest.mark.filterwarnings("ignore:.*tie:UserWarning")  # PEFT tells it
def test_copies_of_a_weight_that_layers_share_are_tied_or_refused():
    both = {"modules_to_save": ["wte", "lm_head"]}
    with pytest.raises(ValueError, match=r"copies of weights that no other layer shares.*ensure_weight_tying"):
        require_matching_model(spread_consolidation(small_model()), adapted(small_model(), **both))
    tied = adapted(small_model(), ensure_weight_tying=True, **both)
    assert "transformer.wte.weight" in require_matching_model(spread_consolidation(small_model()), tied)

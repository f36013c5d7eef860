"""A model in another mode for a while, and then as it was."""

import pytest
import torch
from architectures import t5
from conftest import gpt2
from tiny import tiny_gpt2
from torch import nn
from transformers import PreTrainedModel, ResNetConfig, ResNetModel

from ewc_hf.engines import evaluating, without_cache


def test_every_module_gets_its_own_mode_back_even_after_an_error():
    model = tiny_gpt2().train()
    model.transformer.h[0].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize("build", [gpt2, t5])
def test_no_cache_is_filled_and_the_configs_come_back(build):
    """Those of the encoder and the decoder are copies of the model's own."""
    model = build().eval()
    model.config.use_cache = True
    ids = torch.tensor([[1, 2, 3]])
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})}
    before = [module.config.use_cache for module in model.modules() if isinstance(module, PreTrainedModel)]
    assert model(**inputs).past_key_values is not None
    with pytest.raises(ZeroDivisionError), without_cache(model):
        assert model(**inputs).past_key_values is None
        raise ZeroDivisionError
    assert [module.config.use_cache for module in model.modules() if isinstance(module, PreTrainedModel)] == before


def test_models_inside_others_fill_no_cache_and_a_config_without_the_choice_stays_without():
    known, unknown = gpt2(), ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1]))
    before = unknown.config.to_dict()
    with without_cache(nn.ModuleList([nn.Sequential(known), unknown])):
        assert known.config.use_cache is False
        assert unknown.config.to_dict() == before
    assert known.config.use_cache is True
    assert unknown.config.to_dict() == before

"""A model in another mode for a while, and then as it was."""

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from architectures import t5
from conftest import gpt2
from tiny import tiny_gpt2
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel, ResNetConfig, ResNetModel

from ewc_hf.engines import evaluating, in_full_precision, without_cache


def test_every_module_gets_its_own_mode_back_even_after_an_error():
    model = tiny_gpt2().train()
    model.transformer.h[0].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == before


@pytest.fixture
def accelerators():
    """Makes one of mixed precision after another, and leaves none behind."""
    AcceleratorState._reset_state(True)
    yield lambda: Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state(True)


@pytest.fixture
def one_process(tmp_path):
    """A group of one process, in which a model can be replicated."""
    dist.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def patched(model):
    """As libraries do that replace a model's forward."""
    own = model.forward
    model.forward = lambda **inputs: own(**inputs)
    return model


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("build", [tiny_gpt2, lambda: patched(tiny_gpt2())], ids=["method", "function"])
def test_accelerates_autocast_is_taken_off_and_put_back(accelerators, build, times):
    ids, model = torch.tensor([[1, 2, 3]]), build().eval()
    expected = model(input_ids=ids).logits
    for _ in range(times):
        accelerators().prepare_model(model, evaluation_mode=True)
        del model._is_accelerate_prepared
    wrapped, widened = model.forward, model(input_ids=ids).logits
    assert widened.dtype == torch.float32 and not torch.equal(widened, expected)
    with in_full_precision(model):
        assert torch.equal(model(input_ids=ids).logits, expected)
    assert model.forward == wrapped
    with pytest.raises(ZeroDivisionError), in_full_precision(model):
        raise ZeroDivisionError
    assert model.forward == wrapped


def test_autocast_inside_a_replicated_model_is_taken_off(accelerators, one_process):
    ids, model = torch.tensor([[1, 2, 3]]), tiny_gpt2().eval()
    expected = model(input_ids=ids).logits
    replica = DistributedDataParallel(accelerators().prepare_model(model, evaluation_mode=True))
    with in_full_precision(replica):
        assert torch.equal(replica(input_ids=ids).logits, expected)


def test_autocast_around_the_call_is_off():
    model, ids = tiny_gpt2(), torch.tensor([[1, 2, 3]])
    with torch.autocast("cpu", torch.bfloat16):
        assert model(input_ids=ids).logits.dtype == torch.bfloat16
        with in_full_precision(model):
            assert model(input_ids=ids).logits.dtype == torch.float32


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

"""A model in another mode for a while, and then as it was."""

import functools

import pytest
import torch
from tiny import tiny_gpt2

from ewc_hf.modes import evaluating, in_full_precision


def test_every_module_gets_its_own_mode_back_even_after_an_error():
    model = tiny_gpt2().train()
    model.transformer.h[0].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == before


def test_accelerates_autocast_is_taken_off_and_put_back():
    """Accelerate keeps a model's own forward beside the one that it wraps in autocast."""
    model = tiny_gpt2()
    model._original_forward = model.forward
    wrapped = functools.partial(torch.autocast("cpu", torch.bfloat16)(model.forward))
    model.forward = wrapped
    ids = torch.tensor([[1, 2, 3]])
    assert model(input_ids=ids).logits.dtype == torch.bfloat16
    with in_full_precision(model):
        assert model(input_ids=ids).logits.dtype == torch.float32
    assert model.forward is wrapped

"""The penalty that needs no data."""

import torch

from ewc_hf import l2_to_start


def test_l2_to_start_is_importance_one_around_the_weights(model):
    model.transformer.wpe.weight.requires_grad_(False)
    got = l2_to_start(torch.nn.DataParallel(model))
    assert got.importance.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all((omega == 1).all() for omega in got.importance.values())
    assert all(torch.equal(w, model.get_parameter(name)) for name, w in got.anchor.items())
    model.transformer.ln_f.bias.data += 1
    assert not torch.equal(got.anchor["transformer.ln_f.bias"], model.transformer.ln_f.bias)
    assert got.metadata["unit"] == "squared weight"

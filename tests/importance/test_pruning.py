"""Which weights become zero, against sorting all of them by hand."""

import pytest
import torch
from conftest import gpt2, llama
from torch import nn

from ewc_hf.importance import PruningScope, prunable_layers, prune_weights

MODELS = {"GPT-2": gpt2, "GPT-2, untied": lambda: gpt2(tied=False), "Llama": llama}


def drawn(model):
    draws = torch.Generator().manual_seed(1)
    return {name: torch.rand(p.shape, generator=draws) for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_layers(name):
    """Embeddings, norms and biases stay whole, and what an embedding is tied to."""
    model = MODELS[name]()
    layers = prunable_layers(model)
    assert all(dict(model.named_parameters())[weight] is layer.weight for weight, layer in layers.items())
    matrices = {key for key, p in model.named_parameters() if p.dim() == 2 and "wte" not in key and "wpe" not in key}
    assert layers.keys() == {key for key in matrices if "embed" not in key}
    assert ("lm_head.weight" in layers) == (name != "GPT-2")


@pytest.mark.parametrize("scope", list(PruningScope))
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.85, 1.0])
@pytest.mark.parametrize("by", ["magnitude", "importance"])
def test_the_least_become_zero(scope, sparsity, by):
    model = gpt2()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    importance = drawn(model)
    prune_weights(model, sparsity, None if by == "magnitude" else importance, scope)
    scores = before if by == "magnitude" else importance
    names = list(prunable_layers(model))
    flat = {name: scores[name].abs().flatten() for name in names}
    together = torch.cat(list(flat.values())).sort().values
    for name, p in model.named_parameters():
        if name not in names:
            assert torch.equal(p, before[name])
            continue
        ranked = flat[name].sort().values if scope is PruningScope.LAYER else together
        number = round(sparsity * len(ranked))
        kept = torch.full(p.shape, True) if number == 0 else scores[name].abs() > ranked[number - 1]
        assert torch.equal(p, before[name] * kept)


def test_a_model_as_any_other(tmp_path):
    """No hook, no mask and no other name is left, and it still trains."""
    model = gpt2()
    names = [name for name, _ in model.named_parameters()]
    prune_weights(model, 0.5)
    assert sorted(name for name, _ in model.named_parameters()) == sorted(names)
    assert not list(model.named_buffers()) or all("mask" not in name for name, _ in model.named_buffers())
    assert not any(module._forward_pre_hooks for module in model.modules())
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, dtype=torch.float64)
    for name, p in again.named_parameters():
        assert torch.equal(p, dict(model.named_parameters())[name])
    ids = torch.tensor([[1, 2, 3]])
    model(input_ids=ids, labels=ids).loss.backward()
    assert model.transformer.h[0].mlp.c_fc.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan")])
def test_sparsity(sparsity):
    with pytest.raises(ValueError, match="expected a sparsity from 0 to 1"):
        prune_weights(gpt2(), sparsity)


def test_nothing_to_prune():
    with pytest.raises(ValueError, match="expected linear or convolutional layers, got LayerNorm with none"):
        prune_weights(nn.LayerNorm(3), 0.5)


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_importance_of_another_model(change):
    """Refused before any weight is changed."""
    model = gpt2()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    importance, name = drawn(model), "transformer.h.1.mlp.c_proj.weight"
    importance[name] = importance[name].T.contiguous()
    if change == "missing":
        del importance[name]
    got = "none" if change == "missing" else r"the shape \(16, 64\)"
    with pytest.raises(ValueError, match=rf"expected the importance of '{name}', \(64, 16\), got {got}; estimate it"):
        prune_weights(model, 0.5, importance)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())

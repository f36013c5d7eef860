"""Each closed form and the way of other modules against autograd on one example at a time; which models take them."""

import copy

import oracles
import pytest
import torch
from architectures import causal_model, double_stays_double, perturbed
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from ewc_hf import estimate_importance
from ewc_hf.per_example import layers
from ewc_hf.per_example.contributions import Statistic, Workspace, add_statistic
from ewc_hf.per_example.layers import GradientPath, ModuleCall, path_of

B, T, S, C = 3, 4, 2, 6


class Affine(nn.Module):
    """One tensor among arguments of other kinds; a scalar parameter."""

    def __init__(self):
        super().__init__()
        self.slope, self.shift = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(C))

    def forward(self, power, *, x, scale=1.0):
        return self.slope * x**power * scale + self.shift


MODULES = {
    "linear 2-D": (nn.Linear(C, 5), (B, C)),
    "linear 3-D": (nn.Linear(C, 5), (B, T, C)),
    "linear 4-D": (nn.Linear(C, 5), (B, S, T, C)),
    "linear without bias": (nn.Linear(C, 5, bias=False), (B, T, C)),
    "linear 2-D without bias": (nn.Linear(C, 5, bias=False), (B, C)),
    "Conv1D 2-D": (Conv1D(5, C), (B, C)),
    "Conv1D": (Conv1D(5, C), (B, T, C)),
    "embedding": (nn.Embedding(7, C), (B, T)),
    "embedding 3-D": (nn.Embedding(7, C), (B, T, S)),
    "embedding with padding": (nn.Embedding(7, C, padding_idx=2), (B, T)),
    "layer norm": (nn.LayerNorm(C), (B, T, C)),
    "layer norm 2-D": (nn.LayerNorm(C), (B, C)),
    "layer norm over two": (nn.LayerNorm((T, C), eps=0.1), (B, S, T, C)),
    "layer norm over two, 3-D": (nn.LayerNorm((T, C)), (B, T, C)),
    "layer norm without bias": (nn.LayerNorm(C, bias=False), (B, T, C)),
    "layer norm not affine": (nn.LayerNorm(C, elementwise_affine=False), (B, T, C)),
    "RMS norm": (nn.RMSNorm(C), (B, T, C)),
    "RMS norm over two": (nn.RMSNorm((T, C), eps=0.1), (B, S, T, C)),
    "convolution": (nn.Conv2d(S, 5, 3, padding=1), (B, S, T, C)),
    "grouped convolution": (nn.Conv2d(S, 4, 2, stride=2, groups=2, bias=False), (B, S, T, C)),
    "batch norm": (nn.BatchNorm2d(S), (B, S, T, C)),
    "group norm": (nn.GroupNorm(1, S), (B, S, T, C)),
    "Llama's norm": (LlamaRMSNorm(C), (B, T, C)),
    "Gemma's norm": (GemmaRMSNorm(C), (B, T, C)),
    "scalar": (Affine(), (B, T, C)),
}
CLOSED = (nn.Linear, Conv1D, nn.Embedding, nn.LayerNorm, nn.RMSNorm)


@pytest.fixture
def called(request):
    """A module in eval mode, its call with weights of the output's gradients, and how to repeat it on one example."""
    module, shape = MODULES[request.param]
    module = perturbed(copy.deepcopy(module)).eval()
    draws = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=draws, dtype=torch.float64)
    if isinstance(module, nn.Embedding):
        x = torch.randint(0, 7, shape, generator=draws)
    args, kwargs = ((3,), {"x": x}) if isinstance(module, Affine) else ((x,), {})

    def run(x):
        return module(*args, x=x) if kwargs else module(x)

    return module, ModuleCall(module, {}, x, args, kwargs), run, torch.randn(run(x).shape, generator=draws).double()


def by_autograd(module, run, x, g, statistic):
    """Of every parameter; its dtype is float32 where the module computes in it."""
    parameters = dict(module.named_parameters())
    sums = {own: torch.zeros_like(p) for own, p in parameters.items()}
    for b in range(B) if parameters else ():
        value = (run(x[b : b + 1]) * g[b : b + 1]).sum()
        for own, gradient in zip(parameters, torch.autograd.grad(value, parameters.values()), strict=True):
            sums[own] += gradient.square() if statistic is Statistic.SQUARE else gradient.abs()
    return sums


@pytest.mark.parametrize("chunk", [1, 1 << 22], ids=["one at a time", "all at once"])
@pytest.mark.parametrize("statistic", Statistic)
@pytest.mark.parametrize("called", MODULES, indirect=True)
def test_equals_autograd(called, statistic, chunk, monkeypatch):
    monkeypatch.setattr(layers, "_VMAP_ELEMENTS", chunk)
    module, call, run, g = called
    assert path_of(module) is (GradientPath.CLOSED_FORM if type(module) in CLOSED else GradientPath.MODULE)
    names = {own: f"model.{own}" for own, _ in module.named_parameters()}
    found = ModuleCall(module, names, call.input, call.args, call.kwargs).contributions(g) if names else {}
    assert found.keys() == set(names.values())
    precise = type(module) not in (LlamaRMSNorm, GemmaRMSNorm)
    for own, expected in by_autograd(module, run, call.input, g, statistic).items():
        total = torch.zeros_like(expected)
        add_statistic(total, [found[names[own]]], B, statistic, Workspace())
        torch.testing.assert_close(total, expected, rtol=1e-10 if precise else 1e-5, atol=1e-12 if precise else 1e-6)


@pytest.mark.parametrize("called", ["linear 3-D", "layer norm", "batch norm", "scalar"], indirect=True)
def test_frozen_parameters_contribute_nothing(called):
    module, call, _, g = called
    (own, p), *_ = module.named_parameters()
    p.requires_grad_(False)
    names = {name: name for name, p in module.named_parameters() if p.requires_grad}
    assert own not in names
    assert ModuleCall(module, names, call.input, call.args, call.kwargs).contributions(g).keys() == names.keys()


class Twice(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_subclass_does_not_take_its_parents_closed_form():
    module = Twice(C, 5).double()
    x, g = torch.ones(B, C, dtype=torch.float64), torch.ones(B, 5, dtype=torch.float64)
    assert path_of(module) is GradientPath.MODULE
    found = ModuleCall(module, {"weight": "weight"}, x, (x,), {}).contributions(g)
    assert (found["weight"].gradients == 2).all()


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_norms_of_bfloat16_contribute_in_float32(kind):
    """Rounded to bfloat16 before they are summed over positions, they would be off by a hundredth."""
    draws = torch.Generator().manual_seed(0)
    x_BTC, g_BTC = (torch.randn(B, 200, C, generator=draws).bfloat16() for _ in range(2))
    module = kind(C, eps=1e-5).bfloat16()
    found = ModuleCall(module, {"weight": "weight"}, x_BTC, (x_BTC,), {}).contributions(g_BTC)["weight"].gradients
    exact = kind(C, eps=1e-5).double()(x_BTC.double()).detach() * g_BTC.double()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact.sum(1), rtol=1e-5, atol=1e-5)


def estimate(model, examples):
    return estimate_importance(model, examples, batch_size=3, progress=False)


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "Gemma", "Qwen3"])
def test_bfloat16_models_are_batched_and_near_their_float32_twins(name, padded):
    """A weight of 8 bits is off by up to 0.4%, some tens of roundings lie on the way, and squaring doubles it all."""
    model = causal_model(name).float()
    expected = estimate(model, padded).importance
    got = estimate(model.bfloat16(), padded)
    assert GradientPath.EXAMPLE.value not in got.metadata["paths"].values()
    largest = max(omega.max() for omega in expected.values())
    for own, omega in expected.items():
        assert got.importance[own].dtype == torch.float32
        assert (got.importance[own] - omega).norm() <= 0.15 * omega.norm() + 1e-6 * largest, own


def keys_and_norms(model):
    for name, p in model.named_parameters():
        p.requires_grad_("k_proj" in name or "norm" in name)
    return model


def lora(model):
    peft = pytest.importorskip("peft")
    return perturbed(peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's
@pytest.mark.parametrize("adapt", [keys_and_norms, lora])
def test_parts_of_a_model_with_grouped_queries_are_batched(adapt, padded):
    """What comes first is frozen: nothing below the first trainable module asks for a gradient."""
    model = adapt(causal_model("Llama"))
    with double_stays_double():
        got, expected = estimate(model, padded), oracles.fisher(model, padded)
    expected = {name.removeprefix("base_model.model."): omega for name, omega in expected.items()}  # PEFT's
    assert GradientPath.EXAMPLE.value not in got.metadata["paths"].values()
    assert got.importance.keys() == expected.keys() != dict(model.named_parameters()).keys()
    for name, omega in expected.items():
        torch.testing.assert_close(got.importance[name], omega, rtol=1e-8, atol=1e-10 * omega.max().item())

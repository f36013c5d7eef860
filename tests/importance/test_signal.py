"""Total absolute signal against the oracle, which sees one example at a time, cut to its real length."""

import oracles
import pytest
import torch
from architectures import MLP, VOCAB, ConvNet, causal_model, double_stays_double, perturbed
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from ewc_hf import estimate_importance


class Images(nn.Sequential):
    """Layers that are given images, `[B, 4, 8, 4]` after the first: no dimension but the first is their channels'."""

    def __init__(self, layer):
        super().__init__(nn.Conv2d(1, 4, 3, padding=1), layer, nn.Flatten(), nn.LazyLinear(5))
        torch.manual_seed(0)
        self(torch.ones(1, 1, 8, 4))

    def forward(self, images):
        return super().forward(images)


def estimate(model, examples, **options):
    return estimate_importance(model, examples, method="signal", progress=False, **options)


def assert_same(got, expected, relative=1e-12):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].shape == value.shape
        assert (got[name] - value).abs().max() <= relative * value.abs().max(), name


def run(twin, example):
    """Without the padding."""
    ids = torch.tensor([example["input_ids"]])
    return twin(input_ids=ids[:, : sum(example.get("attention_mask", ids[0] >= 0))]).logits


def images(count, *shape):
    draws = torch.Generator().manual_seed(2)
    return [{"images": torch.randn(shape, generator=draws, dtype=torch.float64), "label": n % 5} for n in range(count)]


@pytest.mark.parametrize("dataset", ["packed", "padded", "ragged"], indirect=True)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", ["GPT-2", "Llama", "Qwen3", "Phi"])
def test_language_models(name, tied, dataset):
    """Norms of two kinds, also of heads; a last layer with a bias; a table of positions that all examples share."""
    model = causal_model(name, tied)
    with double_stays_double():
        expected = oracles.signal(model, dataset, run)
        for batch_size in (1, 3):
            assert_same(estimate(model, dataset, batch_size=batch_size).importance, expected)


class Positions(nn.Module):
    """Layers over `[B, C, T]` and over `[B, H, T, d]`, which padding does not reach."""

    def __init__(self, pad=0):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.mix, self.norm = nn.Embedding(VOCAB, 8), nn.Conv1d(8, 8, 1, padding=pad), nn.LayerNorm(2)
        self.head = nn.Linear(8, VOCAB)

    def forward(self, input_ids, attention_mask):
        x = self.mix(self.embed(input_ids).mT).mT
        x = self.norm(x.unflatten(-1, (4, 2)).transpose(1, 2)).transpose(1, 2).flatten(-2)
        return CausalLMOutput(logits=self.head(x)[:, : input_ids.shape[1]])


@pytest.mark.parametrize("dataset", ["packed", "padded", "ragged"], indirect=True)
def test_padding_is_left_out_wherever_positions_are(dataset):
    model = Positions().double()

    def run_alone(twin, example):
        ids = torch.tensor([example["input_ids"]])
        ids = ids[:, : sum(example.get("attention_mask", ids[0] >= 0))]
        return twin(ids, torch.ones_like(ids)).logits

    for batch_size in (1, 3):
        assert_same(
            estimate(model, dataset, batch_size=batch_size).importance, oracles.signal(model, dataset, run_alone)
        )


def test_padding_in_a_layer_of_another_length_is_refused(padded, packed):
    model = Positions(pad=1).double()
    estimate(model, packed)
    with pytest.raises(ValueError, match=r"some of them padding, got one over \(4, 11\) positions; leave padding out"):
        estimate(model, padded)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    ("build", "shape"), [pytest.param(MLP, (12,), id="MLP"), pytest.param(ConvNet, (1, 12, 12), id="ConvNet")]
)
def test_classifiers_of_images(build, shape, batch_size):
    """The convolutional one changes an output in place after its layer returned it."""
    model, examples = perturbed(build()), images(7, *shape)
    expected = oracles.signal(model, examples, lambda twin, example: twin(example["images"][None]))
    assert_same(estimate(model, examples, batch_size=batch_size).importance, expected)


def test_the_last_bias_has_the_mean_of_the_probabilities():
    model, examples = perturbed(MLP()), images(7, 12)
    logits = model(torch.stack([example["images"] for example in examples]))
    got = estimate(model, examples).importance["layers.4.bias"]
    torch.testing.assert_close(got, torch.softmax(logits, -1).mean(0))


@pytest.mark.parametrize("layer", [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.ConvTranspose2d(4, 3, 3)])
def test_channels_come_second(layer):
    """Of a square picture, another dimension would go unnoticed."""
    model, examples = perturbed(Images(layer)), images(3, 1, 8, 4)
    x_BCHW = model[0](torch.stack([example["images"] for example in examples])).detach()
    if isinstance(layer, nn.ConvTranspose2d):
        expected = layer.weight.abs() * x_BCHW.abs().mean((0, 2, 3))[:, None, None, None]
    else:
        scaled = layer(x_BCHW) - layer.bias[:, None, None]
        expected = scaled.abs().mean((0, 2, 3))
    torch.testing.assert_close(estimate(model, examples).importance["1.weight"], expected.detach())


def test_a_table_that_computes_its_rows(padded):
    """OPT's table of positions is given the attention mask, and looks up the positions two rows on."""
    model, name = causal_model("OPT"), "model.decoder.embed_positions.weight"
    got = estimate(model, padded, batch_size=3).importance[name]
    counts = torch.zeros(len(got), 1, dtype=torch.float64)
    for example in padded:
        counts[2 : 2 + sum(example["attention_mask"])] += 1
    torch.testing.assert_close(got, model.get_parameter(name).detach().abs() * counts / counts.sum())


class Keywords(nn.Module):
    """Calls its layers by keyword, and its table applies a scale."""

    class Scaled(nn.Embedding):
        def forward(self, input_ids):
            return super().forward(input_ids) * -3

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.norm, self.head = self.Scaled(VOCAB, 6), nn.LayerNorm(6), nn.Linear(6, VOCAB)

    def forward(self, input_ids):
        return self.head(input=self.norm(input=self.table(input_ids=input_ids)))


def test_layers_called_by_keyword_and_a_table_with_a_scale(packed):
    model = perturbed(Keywords())
    got = estimate(model, packed).importance
    ids = torch.tensor([example["input_ids"] for example in packed])
    counts = ids.flatten().bincount(minlength=VOCAB) / ids.numel()
    torch.testing.assert_close(got["table.weight"], model.table.weight.detach().abs() * 3 * counts[:, None])
    x = model.norm(model.table(ids)).detach()
    torch.testing.assert_close(got["head.weight"], model.head.weight.detach().abs() * x.abs().mean((0, 1)))


def test_needs_no_gradient_and_leaves_out_what_is_frozen(model, packed):
    whole = estimate(model, packed)
    model.transformer.wte.weight.requires_grad_(False)
    model.transformer.h[0].ln_1.weight.grad = mark = torch.ones(16, dtype=torch.float64)
    got = estimate(model, packed)
    assert whole.importance.keys() - got.importance.keys() == {"transformer.wte.weight"}
    assert_same(got.importance, {name: whole.importance[name] for name in got.importance}, relative=0)
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert list(grads) == ["transformer.h.0.ln_1.weight"]
    assert grads["transformer.h.0.ln_1.weight"] is mark
    assert not any(module._forward_hooks for module in model.modules())
    assert got.metadata["unit"] == "mean absolute signal"
    assert set(got.metadata["paths"].values()) == {"closed form"}


def test_bfloat16_models_are_summed_in_float32(packed):
    """A last bias too, although its logits come in another dtype."""

    class Wide(Keywords):
        def forward(self, input_ids):
            return super().forward(input_ids).float()

    model = perturbed(Wide())
    expected = estimate(model, packed).importance
    got = estimate(model.bfloat16(), packed).importance
    assert {omega.dtype for omega in got.values()} == {torch.float32}
    assert_same({name: omega.double() for name, omega in got.items()}, expected, relative=0.02)


UNKNOWN = {
    "a bare parameter": lambda: causal_model("Mamba"),
    "experts": lambda: causal_model("Mixtral"),
    "grouped": lambda: Images(nn.Conv2d(4, 4, 3, groups=2)),
    "PReLU": lambda: Images(nn.PReLU()),
}


@pytest.mark.parametrize("build", [pytest.param(build, id=name) for name, build in UNKNOWN.items()])
def test_a_layer_of_unknown_connections_is_refused_before_any_work(build):
    model = build()
    model.forward = None
    with pytest.raises(ValueError, match=r"norms for method 'signal', got '[\w.]+' in \w+; freeze it"):
        estimate(model, [{"input_ids": [1, 2]}])

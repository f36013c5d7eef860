"""What an estimate reads, tells and leaves alone, and what it refuses."""

import copy
import math

import oracles
import pytest
import torch
from assertions import assert_same
from datasets import Dataset

from ewc_hf import estimate_importance


def estimate(model, dataset, **options):
    return estimate_importance(model, dataset, **{"progress": False, **options})


def test_a_compiled_model_is_estimated_without_compiling(model, packed):
    def refuse(graph, inputs):
        raise AssertionError("compiled")

    got = estimate(torch.nn.DataParallel(model), packed), estimate(torch.compile(model, backend=refuse), packed)
    for consolidation in got:
        assert_same(consolidation.importance, oracles.fisher(model, packed))


def test_frozen_parameters_are_left_out(model, packed):
    whole = oracles.fisher(model, packed)
    for p in (model.transformer.wpe.weight, model.transformer.h[0].ln_1.bias):
        p.requires_grad_(False)
    got = estimate(model, packed)
    assert whole.keys() - got.importance.keys() == {"transformer.wpe.weight", "transformer.h.0.ln_1.bias"}
    assert got.anchor.keys() == got.importance.keys()
    assert_same(got.importance, {name: whole[name] for name in got.importance})


def test_a_trainable_parameter_out_of_use_has_importance_zero(model, packed):
    model.spare = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    assert estimate(model, packed).importance["spare"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["list", "Dataset"])
def test_a_seed_fixes_the_sample_and_its_labels(model, packed, kind):
    dataset = Dataset.from_list(packed) if kind == "Dataset" else packed
    options = {"labels": "sampled", "num_examples": 2}
    first, again, other = (estimate(model, dataset, seed=seed, **options) for seed in (1, 1, 2))
    assert all(torch.equal(first.importance[name], again.importance[name]) for name in first.importance)
    assert first.metadata == again.metadata
    assert first.metadata["seed"] == 1
    assert any(not torch.equal(first.importance[name], other.importance[name]) for name in first.importance)


def test_a_sample_is_drawn_without_replacement(model, ragged):
    counts = {estimate(model, ragged, num_examples=2, seed=seed).metadata["num_tokens"] for seed in range(8)}
    assert len(counts) > 1
    assert estimate(model, ragged, num_examples=99).metadata["num_tokens"] == oracles.label_tokens(ragged)


def test_a_stream_gives_its_first_examples_and_no_more(model, packed):
    stream = iter(packed)
    got = estimate(model, stream, num_examples=3, batch_size=2)
    assert_same(got.importance, oracles.fisher(model, packed[:3]))
    assert list(stream) == packed[3:]


def test_the_model_comes_back_as_it_was(model, packed):
    model.train()
    model.transformer.h[0].eval()
    model.transformer.h[1].attn.c_attn.weight.requires_grad_(False)
    for p in model.parameters():
        p.grad = torch.full_like(p, 2.5)
    weights = copy.deepcopy(model.state_dict())
    gradients = {name: p.grad for name, p in model.named_parameters()}
    modes, random_state, frozen = modes_of(model), torch.get_rng_state(), frozen_of(model)

    anchor = estimate(model, packed, labels="sampled").anchor

    assert modes_of(model) == modes
    assert frozen_of(model) == frozen
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, p in model.named_parameters():
        assert p.grad is gradients[name]
        assert (p.grad == 2.5).all()
        assert torch.equal(p, weights[name])
        assert name not in anchor or torch.equal(anchor[name], p)


def test_the_mode_comes_back_after_an_error(model, packed):
    model.train()
    model.transformer.drop.eval()
    modes = modes_of(model)
    with pytest.raises(ValueError, match="'input_ids'"):
        estimate(model, [*packed, {"ids": [1]}], num_examples=5, batch_size=1)
    assert modes_of(model) == modes


def modes_of(model):
    return {name: module.training for name, module in model.named_modules()}


def frozen_of(model):
    return {name for name, p in model.named_parameters() if not p.requires_grad}


def test_neither_autocast_nor_no_grad_changes_the_estimate(model, packed):
    model.float()
    expected = estimate(model, packed).importance
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        got = estimate(model, packed).importance
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_bfloat16_models_are_summed_in_float32(model, packed):
    expected = oracles.fisher(model, packed)
    got = estimate(model.bfloat16(), packed)
    assert {omega.dtype for omega in got.importance.values()} == {torch.float32}
    assert {w.dtype for w in got.anchor.values()} == {torch.bfloat16}
    omega = got.importance["transformer.wte.weight"]
    assert (omega.bfloat16().float() != omega).any()
    assert omega.sum().item() == pytest.approx(expected["transformer.wte.weight"].sum().item(), rel=0.1)


@pytest.mark.parametrize("progress", [False, True])
def test_progress_is_shown_on_request(model, packed, progress, capsys):
    estimate(model, packed, progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("importance (fisher)" in err) is progress


@pytest.mark.parametrize(
    ("options", "described"),
    [
        pytest.param(
            {"labels": "predicted"},
            {"labels": "predicted", "unit": "squared gradient of predicted labels per token"},
            id="fisher",
        ),
        pytest.param(
            {"method": "mas", "mas_output": "logits"},
            {"output": "logits", "unit": "squared logit norm per token"},
            id="mas",
        ),
    ],
)
def test_metadata_says_what_was_estimated(model, packed, options, described):
    metadata = estimate(model, packed, **options).metadata
    assert described.items() <= metadata.items()
    assert metadata["method"] == options.get("method", "fisher")
    (task,) = metadata["tasks"]
    assert {**task, "weight": 1.0, "unit": metadata["unit"]}.items() <= {**metadata, "weight": 1.0}.items()
    assert task["weight"] == 1.0


BAD = {
    "empty": ({"dataset": []}, "at least one example, got an empty one"),
    "empty stream": ({"dataset": iter([])}, "at least one example, got an empty one"),
    "no label": ({"dataset": [{"input_ids": [1, 2, 3], "labels": [-100] * 3}]}, "label token, got none in 1 examples"),
    "too short": ({"dataset": [{"input_ids": [1]}, {"input_ids": [2]}]}, "label token, got none in 2 examples"),
    "all masked": ({"dataset": [{"input_ids": [1, 2], "attention_mask": [1, 0]}]}, "label token, got none"),
    "method": ({"method": "hessian"}, "hessian is not a valid Method.*fisher.*mas"),
    "method without data": ({"method": "l2"}, r"which read a sample of text, got 'l2'; use `l2_to_start\(model\)`"),
    "method of a training": ({"method": "synaptic"}, "got 'synaptic'; use .* the callback `SynapticIntelligence`"),
    "label source": ({"labels": "true"}, "true is not a valid LabelSource.*ground_truth.*predicted.*sampled"),
    "output": ({"method": "mas", "mas_output": "loss"}, "loss is not a valid MASOutput.*probabilities.*logits"),
    "no input_ids": ({"dataset": [{"text": "hi"}]}, r"'input_ids', got the keys \['text'\]; tokenize"),
    "collator": (
        {"data_collator": lambda examples: {"input_ids": torch.ones(1, 3, dtype=torch.long)}},
        r"'labels', got the keys \['input_ids'\]; use a collator that adds labels",
    ),
    "num_examples": ({"num_examples": 0}, "num_examples >= 1, got 0"),
    "batch_size": ({"batch_size": 0}, "batch_size >= 1, got 0"),
}


@pytest.mark.parametrize(("options", "message"), [pytest.param(*case, id=name) for name, case in BAD.items()])
def test_bad_input_is_refused(model, packed, options, message):
    with pytest.raises(ValueError, match=message):
        estimate(model, **{"dataset": packed, **options})


def test_a_frozen_model_is_refused(model, packed):
    with pytest.raises(ValueError, match=r"trainable parameters, got one whose .* all have requires_grad=False"):
        estimate(model.requires_grad_(False), packed)


def test_a_model_that_yields_nan_is_refused_by_parameter_name(model, packed):
    model.transformer.ln_f.bias.data[0] = math.nan
    with pytest.raises(ValueError, match="finite numbers, got NaN or Inf in the importance of 'transformer"):
        estimate(model, packed)


def test_a_leftover_column_of_text_does_no_harm(model, packed):
    expected = estimate(model, packed).importance
    got = estimate(model, [{**example, "text": "as it was"} for example in packed]).importance
    assert_same(got, expected)


def test_a_collator_makes_the_batches(model, packed):
    """This one hides the labels of the first half."""

    def collate(examples):
        ids = torch.tensor([example["input_ids"] for example in examples])
        labels = ids.clone()
        labels[:, :5] = -100
        return {"input_ids": ids, "labels": labels}

    got = estimate(model, packed, data_collator=collate, batch_size=3)
    twins = [{**e, "labels": [-100] * 5 + e["input_ids"][5:]} for e in packed]
    assert_same(got.importance, oracles.fisher(model, twins))
    assert got.metadata["num_tokens"] == oracles.label_tokens(twins)

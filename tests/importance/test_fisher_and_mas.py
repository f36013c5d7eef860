"""Fisher and MAS against the oracle, and what their numbers mean."""

import copy
import math

import oracles
import pytest
import torch
from assertions import assert_same
from conftest import VOCAB, gpt2, llama

from ewc_hf import estimate_importance

FISHER = {f"fisher-{labels}": {"labels": labels} for labels in ("ground_truth", "predicted", "sampled")}
MAS = {f"mas-{output}": {"method": "mas", "mas_output": output} for output in ("probabilities", "logits")}
METHODS = {**FISHER, **MAS}
MODELS = {"tied": gpt2, "untied": lambda: gpt2(tied=False), "llama": llama}
DATASETS = ["packed", "padded", "prompted", "ragged"]


def named(cases):
    return [pytest.param(case, id=name) for name, case in cases.items()]


def estimate(model, dataset, **options):
    return estimate_importance(model, dataset, **{"progress": False, **options})


def oracle(model, examples, method="fisher", mas_output=None, labels="ground_truth", seed=0):
    if method == "mas":
        return oracles.mas(model, examples, mas_output)
    return oracles.fisher(model, examples, labels, seed)


@pytest.mark.parametrize("dataset", DATASETS, indirect=True)
@pytest.mark.parametrize("options", named(METHODS))
def test_equals_the_oracle(model, dataset, options):
    """Read as a stream, whose order is the order in which labels are drawn."""
    got = estimate(model, iter(dataset), batch_size=1, seed=3, **options)
    assert_same(got.importance, oracle(model, dataset, seed=3, **options))
    assert all(omega.dtype == torch.float64 for omega in got.importance.values())
    assert got.metadata["num_tokens"] == oracles.label_tokens(dataset)
    assert got.metadata["num_examples"] == len(dataset)


@pytest.mark.parametrize("build", named(MODELS))
@pytest.mark.parametrize("options", named({name: METHODS[name] for name in ("fisher-ground_truth", "mas-logits")}))
def test_equals_the_oracle_on_other_models(build, options, padded):
    model = build()
    got = estimate(model, padded, **options).importance
    assert_same(got, oracle(model, padded, **options), relative=1e-6 if build is llama else 1e-10)
    assert ("lm_head.weight" in got) is (build is not gpt2)


@pytest.mark.parametrize("dataset", DATASETS, indirect=True)
@pytest.mark.parametrize("options", named(METHODS))
def test_batch_size_does_not_matter(model, dataset, options):
    one, three = (estimate(model, dataset, batch_size=size, **options) for size in (1, 3))
    assert_same(three.importance, one.importance)
    assert one.metadata["num_tokens"] == three.metadata["num_tokens"]


def test_squares_the_gradient_of_each_example(model, packed):
    """In a batch of four, the square of the mean gradient is another number, and a smaller one."""
    got = estimate(model, packed, batch_size=4).importance
    mistaken = oracles.squared_batch_gradient(model, packed)
    total, mistaken_total = (sum(value.sum() for value in values.values()) for values in (got, mistaken))
    assert total > 2 * mistaken_total


def test_predicts_the_rise_of_the_nll_in_nats_per_token(model, packed):
    """A small move of one weight raises the mean NLL of the model's own text by the KL divergence."""
    omega = estimate(model, [packed[0]] * 300, labels="sampled", num_examples=300).importance
    ratios = []
    for name in ("transformer.wte.weight", "transformer.h.0.attn.c_attn.weight", "transformer.h.1.mlp.c_proj.weight"):
        index, moved, d = omega[name].argmax(), copy.deepcopy(model.eval()), 1e-3
        moved.get_parameter(name).data.view(-1)[index] += d
        predicted = omega[name].view(-1)[index].item() * d**2 / 2
        ratios.append(predicted / oracles.kl_per_token(model, moved, packed[0]))
    assert ratios == pytest.approx([1, 1, 1], abs=0.25)


@pytest.mark.parametrize("options", named({name: METHODS[name] for name in METHODS if name != "fisher-sampled"}))
def test_does_not_grow_with_the_sample(model, packed, options):
    once, twice = estimate(model, packed, **options), estimate(model, packed + packed, **options)
    assert_same(twice.importance, once.importance)
    assert twice.metadata["num_tokens"] == 2 * once.metadata["num_tokens"]


def test_the_models_differ_from_chance(model, packed):
    """Guards the tests above: a model of uniform predictions would hide a wrong shift or mask."""
    logits = model.eval()(torch.tensor([packed[0]["input_ids"]])).logits.log_softmax(-1)
    assert logits.max() > math.log(5 / VOCAB)

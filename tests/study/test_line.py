"""The straight line between two sets of weights, in memory."""

import copy

import pytest
import torch
from conftest import gpt2, llama
from torch import nn

from ewc_hf.engines import sharding
from ewc_hf.study import WeightLine
from ewc_hf.study.line import line_tensors


class Normed(nn.Module):
    """A number without dimensions, saved buffers of both kinds, and one that is not saved."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.norm = nn.BatchNorm1d(3).double()
        self.register_buffer("passing", torch.ones(2, dtype=torch.float64), persistent=False)


def other_than(model, seed=1):
    """The same model with other numbers everywhere."""
    other, draws = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers()):
            if tensor.is_floating_point():
                tensor += torch.randn(tensor.shape, generator=draws, dtype=torch.float64)
            else:
                tensor += 5
    return other


def copied(model):
    return {name: tensor.detach().clone() for name, tensor in line_tensors(model).items()}


def line_of(model):
    base, tuned = copied(model), copied(other_than(model))
    return WeightLine(model, base, tuned), base, tuned


MODELS = {"tied GPT-2": gpt2, "untied GPT-2": lambda: gpt2(tied=False), "Llama": llama, "buffers": Normed}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("t", [0.3, 0.5, 0.9])
def test_a_point_is_that_of_the_formula(make, t):
    model = make()
    line, base, tuned = line_of(model)
    line.move_to(t)
    assert line_tensors(model).keys() == base.keys()
    for name, weight in line_tensors(model).items():
        expected = base[name] + t * (tuned[name] - base[name])
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("rows", [1 << 24, 5], ids=["whole", "row by row"])
def test_the_ends_are_exact_whatever_came_before(monkeypatch, rows):
    monkeypatch.setattr(sharding, "_BLOCK_ELEMENTS", rows)
    model = gpt2()
    base = {name: -torch.zeros_like(tensor) for name, tensor in line_tensors(model).items()}
    tuned = {name: (tensor.detach() * 1e300) for name, tensor in line_tensors(model).items()}
    line = WeightLine(model, base, tuned)
    for t, end in ((1, tuned), (0.4, None), (0, base), (0.7, None), (1.0, tuned), (0.0, base)):
        line.move_to(t)
        for name, weight in line_tensors(model).items() if end else ():
            assert torch.equal(weight.detach().view(torch.int64), end[name].view(torch.int64)), name


def test_rows_come_in_pieces(monkeypatch):
    model = gpt2()
    line, base, tuned = line_of(model)
    monkeypatch.setattr(sharding, "_BLOCK_ELEMENTS", 40)
    line.move_to(0.25)
    for name, weight in line_tensors(model).items():
        torch.testing.assert_close(weight.detach(), torch.lerp(base[name], tuned[name], 0.25), rtol=0, atol=0)


def test_tied_weights_stay_tied_and_are_named_once():
    model = gpt2()
    assert "lm_head.weight" not in line_tensors(model)
    line, *_ = line_of(model)
    line.move_to(0.5)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_the_ends_are_left_as_they_are():
    model = gpt2()
    line, base, tuned = line_of(model)
    before = copy.deepcopy((base, tuned))
    for t in (0.5, 1, 0):
        line.move_to(t)
    for end, old in zip((base, tuned), before, strict=True):
        assert all(torch.equal(end[name], old[name]) for name in old)


def test_whole_numbers_and_passing_buffers_are_not_on_the_line():
    model = Normed()
    assert line_tensors(model).keys() == {"scale", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"}
    line, *_ = line_of(model)
    model.norm.num_batches_tracked.fill_(7)
    line.move_to(0.5)
    assert model.norm.num_batches_tracked == 7
    assert torch.equal(model.passing, torch.ones(2, dtype=torch.float64))


def test_half_precision_is_interpolated_in_float32():
    """A step that is lost in bfloat16 moves a model of float32, and is rounded once in one of bfloat16."""
    for dtype in (torch.float32, torch.bfloat16):
        model = nn.Linear(2, 2).to(dtype)
        base = {name: torch.full(p.shape, 1.0) for name, p in model.named_parameters()}
        tuned = {name: torch.full(p.shape, 1.0 + 2**-7).bfloat16() for name, p in model.named_parameters()}
        WeightLine(model, base, tuned).move_to(0.75)
        assert (model.weight == torch.tensor(1 + 0.75 * 2**-7).to(dtype)).all()


def without_last(tensors):
    return dict(list(tensors.items())[:-1])


def test_differences_are_refused_by_the_first_name():
    model = gpt2()
    base, tuned = copied(model), copied(other_than(model))
    with pytest.raises(ValueError, match=r"got 'transformer.ln_f.bias' in the model and not in base; a line joins"):
        WeightLine(model, without_last(base), tuned)
    with pytest.raises(ValueError, match=r"got 'lm_head.weight' in tuned and not in the model; a line joins"):
        WeightLine(model, base, {**tuned, "lm_head.weight": model.lm_head.weight})
    with pytest.raises(ValueError, match=r"shape of 'transformer.wpe.weight' in .*, got \(32, 16\) and \(31, 16\)"):
        WeightLine(model, base, {**tuned, "transformer.wpe.weight": torch.zeros(31, 16)})


@pytest.mark.parametrize("t", [-0.1, 1.1, float("nan")])
def test_a_point_outside_is_refused(t):
    line, *_ = line_of(gpt2())
    with pytest.raises(ValueError, match="expected 0 <= t <= 1, from the base model to the tuned one, got"):
        line.move_to(t)

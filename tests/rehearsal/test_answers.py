"""A model's answers, a few rows at a time."""

import pytest
import torch
from tiny import VOCABULARY, tiny_gpt2
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from ewc_hf.rehearsal import answers, answers_of, answers_to


def rows_of(*lengths):
    draws = torch.Generator().manual_seed(0)
    return [torch.randint(0, VOCABULARY, (length,), generator=draws) for length in lengths]


@pytest.mark.parametrize(("dtype", "wide"), [("float64", "float64"), ("float32", "float32"), ("bfloat16", "float32")])
def test_they_are_the_likeliest_tokens_the_mass_of_the_rest_and_draws_from_it(dtype, wide):
    logits = torch.randn(2, 3, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = logits.to(getattr(torch, dtype))
    got = answers_of(logits, 4)
    log_p, ids = logits.to(getattr(torch, wide)).log_softmax(-1).sort(-1, descending=True)
    assert got.log_probs.dtype == got.rest.dtype == getattr(torch, wide)
    assert torch.equal(got.log_probs[..., :4], log_p[..., :4]) and got.ids.shape[-1] == 4 + answers.DRAWS
    assert dtype == "bfloat16" or torch.equal(got.ids[..., :4], ids[..., :4])  # it has ties
    assert not (got.ids[..., 4:, None] == got.ids[..., None, :4]).any(), "a draw is none of the likeliest"
    assert torch.equal(got.log_probs, logits.to(log_p).log_softmax(-1).gather(-1, got.ids))
    assert torch.allclose(got.rest, log_p[..., 4:].exp().sum(-1), rtol=1e-6)


def test_draws_come_as_often_as_the_old_model_has_it():
    logits = torch.randn(1, 1, 11, generator=torch.Generator().manual_seed(0)).expand(1, 4000, 11)
    got = answers_of(logits, 4, torch.Generator().manual_seed(1))
    shares = torch.bincount(got.ids[..., 4:].flatten(), minlength=11) / got.ids[..., 4:].numel()
    others = logits[0, 0].softmax(-1).index_fill(0, got.ids[0, 0, :4], 0)
    assert (shares - others / others.sum()).abs().max() < 0.015


def test_with_every_token_there_is_no_rest():
    assert torch.equal(answers_of(torch.randn(2, 3, 11), 11).rest, torch.zeros(2, 3))


@pytest.mark.parametrize("at_once", [1, 20, 1024], ids=["a row", "some rows", "all rows"])
@torch.no_grad()
def test_rows_of_several_lengths_are_answered_as_each_alone(monkeypatch, at_once):
    monkeypatch.setattr(answers, "_POSITIONS_AT_ONCE", at_once)
    model, rows = tiny_gpt2(dtype=torch.float64).eval(), rows_of(4, 9, 1, 6, 16)
    for row, got in zip(rows, answers_to(model, rows, 5), strict=True):
        log_p, ids = model(row[None]).logits[0].log_softmax(-1).topk(5)
        assert torch.equal(got.ids[:, :5], ids)
        assert (got.log_probs[:, :5] - log_p).abs().max() < 1e-12
        assert (got.rest - (1 - log_p.exp().sum(-1))).abs().max() < 1e-12


@torch.no_grad()
def test_never_more_positions_than_that_are_read_at_once(monkeypatch):
    monkeypatch.setattr(answers, "_POSITIONS_AT_ONCE", 20)
    seen, model = [], tiny_gpt2().eval()
    model.register_forward_pre_hook(lambda _, args, inputs: seen.append(inputs["input_ids"].numel()), with_kwargs=True)
    answers_to(model, rows_of(*[9] * 5), 3)
    assert seen == [18, 18, 9]


class Fixed(nn.Module):
    """A model that has always the same logits."""

    def __init__(self, logits):
        super().__init__()
        self.weight, self.logits = nn.Parameter(torch.zeros(1)), logits

    def forward(self, input_ids, attention_mask):
        return CausalLMOutput(logits=self.logits)


@pytest.mark.parametrize(
    ("shape", "got"), [((2, 1, 9), r"\(2, 1, 9\)"), ((2, 4, 4), r"\(2, 4, 4\)")], ids=["positions", "tokens"]
)
def test_logits_of_another_shape_are_refused(shape, got):
    with pytest.raises(ValueError, match=rf"logits of 5 or more tokens at each of \(2, 4\) positions, .* shape {got}"):
        answers_to(Fixed(torch.zeros(shape)), rows_of(4, 4), 5)


def test_they_move_to_a_device():
    moved = answers_of(torch.randn(2, 3, 11), 4).to(torch.device("meta"))
    assert {moved.ids.device.type, moved.log_probs.device.type, moved.rest.device.type} == {"meta"}

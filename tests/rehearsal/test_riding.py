"""Rows that ride in a batch, against forward passes of their own."""

import pytest
import torch
from conftest import VOCAB, gpt2
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from ewc_hf.rehearsal.riding import RidingRows


@pytest.fixture
def model():
    return gpt2().eval()


def drawn(*shape, seed=0):
    return torch.randint(1, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def riding_of(*lengths):
    """Rows padded on the right, and how long each is."""
    ids = drawn(len(lengths), max(lengths), seed=1)
    lengths = torch.tensor(lengths)
    return ids * (torch.arange(ids.shape[1]) < lengths[:, None]), lengths


def batch_of(columns, length=7):
    """Three rows of the task, with a mask of which the second one is padded on the right, the third on the left."""
    ids, mask = drawn(3, length), torch.ones(3, length, dtype=torch.long)
    if "attention_mask" in columns:
        mask[1, 4:] = mask[2, :2] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    return {key: value for key, value in inputs.items() if key in columns}


COLUMNS = [
    ("input_ids",),
    ("input_ids", "attention_mask"),
    ("input_ids", "labels"),
    ("input_ids", "attention_mask", "labels"),
]


@pytest.mark.parametrize("columns", COLUMNS, ids=" ".join)
@pytest.mark.parametrize("lengths", [(11, 3), (7, 7), (2, 5)], ids=["longer", "alike", "shorter"])
def test_logits_are_those_of_passes_apart(model, columns, lengths):
    ids_RT, lengths_R = riding_of(*lengths)
    inputs = batch_of(columns)
    alone = model(**inputs)
    with RidingRows(model, ids_RT, lengths_R) as riding:
        together = model(**inputs)
        logits = riding.take_logits()
    assert together.logits.shape == alone.logits.shape
    assert (together.logits - alone.logits).abs().max() < 1e-12
    assert logits.shape == (2, max(lengths), VOCAB)
    for row, length in enumerate(lengths):
        expected = model(ids_RT[row : row + 1, :length]).logits[0]
        assert (logits[row, :length] - expected).abs().max() < 1e-12
    if "labels" in columns:
        assert (together.loss - alone.loss).abs() < 1e-6  # transformers computes it in float32


def test_the_batch_itself_stays_as_it_is(model):
    inputs = batch_of(COLUMNS[-1])
    before = {key: value.clone() for key, value in inputs.items()}
    with RidingRows(model, *riding_of(11, 3)):
        model(**inputs)
    assert all(torch.equal(inputs[key], value) for key, value in before.items())


def test_both_share_one_backward_pass(model):
    ids_RT, lengths_R = riding_of(9, 9)
    inputs = batch_of(("input_ids",))
    (model(**inputs).logits.square().mean() + 2 * model(input_ids=ids_RT).logits.square().mean()).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    with RidingRows(model, ids_RT, lengths_R) as riding:
        task = model(**inputs).logits
        (task.square().mean() + 2 * riding.take_logits().square().mean()).backward()
    for name, p in model.named_parameters():
        assert (p.grad - expected[name]).abs().max() < 1e-12, name


def test_only_the_first_pass_with_gradients_takes_rows(model):
    inputs = batch_of(("input_ids",))
    seen = []
    model.transformer.wte.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    with RidingRows(model, *riding_of(9, 3)) as riding:
        with torch.no_grad():
            assert len(model(**inputs).logits) == 3
        assert len(model(**inputs).logits) == 3
        assert len(model(**inputs).logits) == 3
        riding.take_logits()
        assert len(model(**inputs).logits) == 3
        with torch.no_grad():
            assert len(model(**inputs).logits) == 3
    assert seen == [3, 5, 3, 3, 3]


def test_logits_are_not_held_through_the_backward_pass(model):
    with RidingRows(model, *riding_of(9, 3)) as riding:
        model(**batch_of(("input_ids",)))
        riding.take_logits()
        with pytest.raises(ValueError, match=r"expected a forward pass of the model with gradients .*got none; train"):
            riding.take_logits()


def test_a_step_without_a_forward_pass_with_gradients_is_refused(model):
    with RidingRows(model, *riding_of(9, 3)) as riding:
        with torch.no_grad():
            model(**batch_of(("input_ids",)))
        with pytest.raises(ValueError, match=r"expected a forward pass of the model with gradients .*got none; train"):
            riding.take_logits()


class Given(nn.Module):
    """A model of which the test says what it returns."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, *args, **inputs):
        return self.outputs


IDS = torch.ones(3, 7, dtype=torch.long)
WRONG_INPUTS = {
    "another column": (
        (), {"input_ids": IDS, "position_ids": IDS},
        r"of input_ids, attention_mask, labels, all of one shape, .* got .*position_ids of the shape \(3, 7\); leave",
    ),
    "embeddings": ((), {"inputs_embeds": torch.ones(3, 7, 4)}, r"got inputs_embeds of the shape \(3, 7, 4\); leave"),
    "a mask of pairs": (
        (), {"input_ids": IDS, "attention_mask": torch.ones(3, 1, 7, 7)}, r"got .*attention_mask .*\(3, 1, 7, 7\); le",
    ),
    "no column": ((), {"use_cache": False}, "got no such columns; leave"),
    "positional": ((IDS,), {}, "got no such columns and positional arguments; leave"),
    "positional beside": ((None,), {"input_ids": IDS}, r"\(3, 7\) and positional arguments; leave"),
}  # fmt: skip
WRONG_OUTPUTS = {
    "a tuple": (
        (torch.ones(5, 9, VOCAB),),
        r"expected logits at each position of a batch, \(5, 9\), .*got none from tu",
    ),
    "no logits": (CausalLMOutput(loss=torch.ones(())), "got none from CausalLMOutput; switch off kernels"),
    "the last logits": (
        CausalLMOutput(logits=torch.ones(5, 1, VOCAB)),
        r"got the shape \(5, 1, 40\) from CausalLMOut",
    ),
    "fewer rows": (CausalLMOutput(logits=torch.ones(3, 9, VOCAB)), r"got the shape \(3, 9, 40\) from CausalLMOutput"),
}


def require_no_hooks(model):
    assert not model._forward_hooks and not model._forward_pre_hooks


@pytest.mark.parametrize(("args", "inputs", "message"), WRONG_INPUTS.values(), ids=WRONG_INPUTS)
def test_batches_that_rows_cannot_ride_in_are_refused(args, inputs, message):
    model = Given(None)
    with pytest.raises(ValueError, match=message), RidingRows(model, *riding_of(9, 3)):
        model(*args, **inputs)
    require_no_hooks(model)


@pytest.mark.parametrize(("outputs", "message"), WRONG_OUTPUTS.values(), ids=WRONG_OUTPUTS)
def test_results_without_logits_of_each_row_are_refused(outputs, message):
    model = Given(outputs)
    with pytest.raises(ValueError, match=message), RidingRows(model, *riding_of(9, 3)):
        model(input_ids=IDS)
    require_no_hooks(model)


def test_no_hook_stays(model):
    with RidingRows(model, *riding_of(9, 3)):
        model(**batch_of(("input_ids",)))
    require_no_hooks(model)
    with pytest.raises(ZeroDivisionError), RidingRows(model, *riding_of(9, 3)):
        1 / 0  # noqa: B018
    require_no_hooks(model)

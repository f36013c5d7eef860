"""The logits that objectives are made of."""

from dataclasses import replace

import pytest
import torch
from conftest import gpt2
from peft import PromptTuningConfig, get_peft_model
from torch import nn

from ewc_hf import estimate_importance
from ewc_hf.data import batches
from ewc_hf.importance.objective import logits_of


def test_logits_have_a_row_for_each_label(model, packed):
    """The model is not given the labels, and computes no loss of its own."""
    (batch,) = batches(packed, 4, None, model)
    assert logits_of(model, batch).shape == (4, 9, 40)
    with pytest.raises(ValueError, match=r"one row for each of \(4, 8\) labels, got logits of shape \(4, 9, 40\)"):
        logits_of(model, replace(batch, labels=batch.labels[:, 1:]))


@pytest.mark.parametrize("label", [-1, -99, 40, 50256])
def test_labels_that_are_no_class_are_named(model, packed, label):
    other = {**packed[0], "labels": [*packed[0]["input_ids"][:-1], label]}
    for examples in ([*packed, other], [other]):
        with pytest.raises(ValueError, match=rf"expected labels from 0 to 39, or -100 .*got .*{label}"):
            estimate_importance(model, examples, progress=False)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_virtual_tokens_of_a_prompt_are_refused(packed):
    prompted = get_peft_model(gpt2(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(ValueError, match="a model without virtual tokens, as PEFT's prompt tuning adds"):
        estimate_importance(prompted, packed, progress=False)


def test_one_output_is_no_distribution():
    examples = [{"inputs": torch.randn(4), "label": 0} for _ in range(3)]
    for method in ("fisher", "mas"):
        with pytest.raises(ValueError, match="expected logits of two classes or more, got one output a label"):
            estimate_importance(Regression(), examples, method, progress=False)
    found = estimate_importance(Regression(), examples, "mas", mas_output="logits", progress=False)
    assert all(omega.any() for omega in found.importance.values())


class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, inputs):
        return self.layer(inputs)

"""Which position predicts a label: what the model's own loss says, never a guess."""

import pytest
import torch
from architectures import bert, causal_model
from conftest import gpt2, llama
from torch import nn
from transformers import BertForSequenceClassification, MBartConfig, MBartForCausalLM
from transformers.modeling_outputs import CausalLMOutput

from ewc_hf.data.own_loss import own_loss_shifts

IDS_BT = torch.tensor([[4, 5, 6, 7, 8], [9, 8, 7, 6, 5]])
LABELS_BT = torch.tensor([[3, 9, 4, 8, 5], [7, 4, 9, 3, 8]])


def mbart():
    torch.manual_seed(0)
    sizes = {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}
    return MBartForCausalLM(MBartConfig(vocab_size=40, max_position_embeddings=32, init_std=0.5, **sizes))


class OtherLoss(nn.Module):
    """A loss that is not the mean, or none at all."""

    def __init__(self, scale):
        super().__init__()
        self.inner, self.scale = gpt2(), scale

    def forward(self, input_ids, labels=None):
        output = self.inner(input_ids=input_ids, labels=labels)
        loss = None if self.scale is None or labels is None else self.scale * output.loss
        return CausalLMOutput(loss, output.logits)


@pytest.mark.parametrize(
    ("build", "shifts"), [(gpt2, True), (llama, True), (mbart, False), (lambda: OtherLoss(None), True)]
)
def test_the_position_is_the_own_loss_s(build, shifts):
    assert own_loss_shifts(build(), {"input_ids": IDS_BT}, LABELS_BT, None, given=True) is shifts


def test_a_class_that_does_not_shift_needs_labels():
    with pytest.raises(ValueError, match=r"key 'labels' for MBartForCausalLM, .* being the token after it"):
        own_loss_shifts(mbart(), {"input_ids": IDS_BT}, IDS_BT, None, given=False)


def test_another_loss_is_refused():
    with pytest.raises(ValueError, match=r"got the loss .* from OtherLoss, where that is .*switch off"):
        own_loss_shifts(OtherLoss(2.0), {"input_ids": IDS_BT}, LABELS_BT, None, given=True)
    mixture = causal_model("Mixtral")
    assert own_loss_shifts(mixture, {"input_ids": IDS_BT}, LABELS_BT, None, given=True)
    mixture.config.output_router_logits, mixture.router_aux_loss_coef = True, 1.0
    with pytest.raises(ValueError, match="such as `output_router_logits`"):
        own_loss_shifts(mixture, {"input_ids": IDS_BT}, LABELS_BT, None, given=True)


def test_examples_without_a_label_do_not_tell():
    assert own_loss_shifts(gpt2(), {"input_ids": IDS_BT}, torch.full_like(IDS_BT, -100), None, given=True) is None
    assert own_loss_shifts(gpt2(), {"input_ids": IDS_BT[:, :1]}, IDS_BT[:, :1], None, given=True) is None


def test_a_label_that_is_no_class_is_left_to_the_objective():
    assert own_loss_shifts(gpt2(), {"input_ids": IDS_BT}, LABELS_BT + 1000, None, given=True)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_comes_back_as_it_was(training):
    """A classifier's loss writes the kind of its problem into the configuration."""
    model = bert(BertForSequenceClassification).train(training)
    state = torch.get_rng_state()
    assert own_loss_shifts(model, {"input_ids": IDS_BT}, torch.tensor([1, 0]), None, given=True) is False
    assert model.training is training
    assert model.config.problem_type is None
    assert torch.equal(torch.get_rng_state(), state)

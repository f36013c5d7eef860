"""Padding that changes what a model computes is left out: the batch size does not change an estimate."""

import pytest
import torch
import torch.distributed as dist
from architectures import bert, perturbed
from conftest import gpt2
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import (
    BertForSequenceClassification,
    FNetConfig,
    FNetForSequenceClassification,
    GPT2ForSequenceClassification,
)

from ewc_hf import estimate_importance
from ewc_hf.per_example import GradientPath

RAGGED = [{"input_ids": list(range(3, 3 + length)), "label": length % 2} for length in (7, 3, 5, 4)]


class MeanOfEmbeddings(nn.Module):
    """What a beginner's text classifier looks like."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(40, 8), nn.Linear(8, 2)

    def forward(self, input_ids):
        return self.head(self.embed(input_ids).mean(1))


class LastState(nn.Module):
    """A recurrent classifier."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.cell, self.head = nn.Embedding(40, 8), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, input_ids):
        return self.head(self.cell(self.embed(input_ids))[0][:, -1])


def fnet():
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 40}
    return perturbed(FNetForSequenceClassification(FNetConfig(**sizes, max_position_embeddings=16)))


def gpt2_classifier(padding):
    torch.manual_seed(0)
    config = gpt2().config
    config.pad_token_id = padding
    return GPT2ForSequenceClassification(config)


def bert_classifier():
    torch.manual_seed(0)
    return bert(BertForSequenceClassification)


EXAMPLES = {
    "at once": RAGGED,
    "later": [RAGGED[0], RAGGED[0], *RAGGED[1:]],
}
BUILDS = {
    "mean": (MeanOfEmbeddings, False),
    "recurrent": (LastState, False),
    "FNet": (fnet, False),
    "last token, padding unknown": (lambda: gpt2_classifier(None), False),
    "last token, padding known": (lambda: gpt2_classifier(39), True),
    "mask": (bert_classifier, True),
}


@pytest.mark.parametrize("method", ["fisher", "mas"])
@pytest.mark.parametrize(("build", "batched"), [pytest.param(*BUILDS[kind], id=kind) for kind in BUILDS])
@pytest.mark.parametrize("examples", EXAMPLES.values(), ids=EXAMPLES)
def test_the_batch_size_does_not_change_the_estimate(build, batched, method, examples):
    """Also where the first batch has no padding."""
    alone, together = (
        estimate_importance(build().double(), iter(examples), method, batch_size=size, progress=False)
        for size in (1, 2)
    )
    round_off = 1e-10 * max(float(omega.max()) for omega in alone.importance.values())
    for name, omega in alone.importance.items():
        torch.testing.assert_close(together.importance[name], omega, rtol=1e-6, atol=round_off)
    assert (GradientPath.EXAMPLE.value not in together.metadata["paths"].values()) is batched


def test_padding_of_an_example_without_a_label_tells_nothing():
    """The second batch decides."""
    examples = [RAGGED[0], RAGGED[0], {**RAGGED[1], "label": -100}, *RAGGED[1:]]
    alone, together = (
        estimate_importance(MeanOfEmbeddings().double(), iter(examples), batch_size=size, progress=False)
        for size in (1, 3)
    )
    for name, omega in alone.importance.items():
        torch.testing.assert_close(together.importance[name], omega, rtol=1e-6, atol=1e-12)


def test_one_warning_tells_why(caplog):
    estimate_importance(MeanOfEmbeddings(), iter(RAGGED), batch_size=2, progress=False)
    assert caplog.text.count("padding changes what the model computes") == 1


@pytest.fixture
def one_process(tmp_path):
    """A group of one process, in which a model can be sharded."""
    dist.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_sharded_model_whose_first_batch_had_no_padding_is_refused(one_process):
    """What is summed by shares cannot go on one by one."""
    sharded = fully_shard(MeanOfEmbeddings(), mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match="expected examples of one length, as in the first batch"):
        estimate_importance(sharded, iter([RAGGED[0], RAGGED[0], *RAGGED[1:]]), batch_size=2, progress=False)

"""Labels of the data, of the model's choice, and drawn from its distribution."""

import pytest
import torch

from ewc_hf.data import IGNORED, Batch
from ewc_hf.importance import LabelSource
from ewc_hf.importance.label_source import draw_labels, uniforms

LABELS_BT = torch.tensor([[3, 1, IGNORED, 2, 0], [IGNORED, 6, 5, IGNORED, IGNORED]])


@pytest.fixture
def logits_BTV():
    return torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("source", LabelSource)
def test_labels_that_do_not_count_stay_so(logits_BTV, source):
    drawn_BT = draw_labels(logits_BTV, LABELS_BT, source, torch.rand(LABELS_BT.shape))
    assert torch.equal(drawn_BT == IGNORED, LABELS_BT == IGNORED)
    expected = {LabelSource.GROUND_TRUTH: LABELS_BT, LabelSource.PREDICTED: logits_BTV.argmax(-1)}
    if source in expected:
        assert torch.equal(drawn_BT, torch.where(LABELS_BT == IGNORED, IGNORED, expected[source]))


def test_sampled_labels_follow_the_models_distribution():
    logits_BTV = torch.tensor([[[0.0, 1.0, 2.0]]]).expand(1, 20000, 3)
    labels_BT = torch.zeros(1, 20000, dtype=torch.long)
    uniforms_BT = torch.rand(labels_BT.shape, generator=torch.Generator().manual_seed(0))
    drawn_BT = draw_labels(logits_BTV, labels_BT, LabelSource.SAMPLED, uniforms_BT)
    frequencies = drawn_BT.flatten().bincount(minlength=3) / 20000
    torch.testing.assert_close(frequencies, logits_BTV[0, 0].softmax(-1), rtol=0, atol=0.02)


def test_quantiles_are_of_an_example_whichever_batch_it_is_in():
    batch = Batch({}, LABELS_BT, torch.tensor([4, 9]))
    both = uniforms(batch, 3)
    assert torch.equal(uniforms(batch.rows(slice(1, 2)), 3), both[1:])
    assert not torch.equal(both[0], both[1])


def test_quantiles_follow_the_seed():
    batch = Batch({}, LABELS_BT, torch.tensor([4, 9]))
    assert not torch.equal(uniforms(batch, 3), uniforms(batch, 4))

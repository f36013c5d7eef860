"""Labels that count, and what each costs."""

import pytest
import torch

from ewc_hf.labels import IGNORED, LabelSource, draw_labels, next_token_pairs, token_nll


@pytest.fixture
def logits_BTV():
    return torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


LABELS_BT = torch.tensor([[3, 1, IGNORED, 2, 0], [IGNORED, 6, 5, IGNORED, IGNORED]])


def test_each_label_is_paired_with_the_position_before_it(logits_BTV):
    logits, labels = next_token_pairs(logits_BTV, LABELS_BT)
    assert torch.equal(logits, logits_BTV[:, :4])
    assert labels.tolist() == [[1, IGNORED, 2, 0], [6, 5, IGNORED, IGNORED]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_become_float32(logits_BTV, dtype):
    assert next_token_pairs(logits_BTV.to(dtype), LABELS_BT)[0].dtype == torch.float32


def test_nll_is_zero_where_the_label_does_not_count(logits_BTV):
    nll_BT = token_nll(logits_BTV, LABELS_BT)
    for b in range(2):
        for t in range(5):
            label = LABELS_BT[b, t].item()
            p = logits_BTV[b, t].exp() / logits_BTV[b, t].exp().sum()
            assert nll_BT[b, t].item() == pytest.approx(0 if label == IGNORED else -p[label].log().item(), rel=1e-12)


@pytest.mark.parametrize("source", LabelSource)
def test_labels_that_do_not_count_stay_so(logits_BTV, source):
    drawn_BT = draw_labels(logits_BTV, LABELS_BT, source, torch.Generator().manual_seed(0))
    assert torch.equal(drawn_BT == IGNORED, LABELS_BT == IGNORED)
    expected = {LabelSource.GROUND_TRUTH: LABELS_BT, LabelSource.PREDICTED: logits_BTV.argmax(-1)}
    if source in expected:
        assert torch.equal(drawn_BT, torch.where(LABELS_BT == IGNORED, IGNORED, expected[source]))


def test_sampled_labels_follow_the_models_distribution():
    logits_BTV = torch.tensor([[[0.0, 1.0, 2.0]]]).expand(1, 20000, 3)
    labels_BT = torch.zeros(1, 20000, dtype=torch.long)
    drawn_BT = draw_labels(logits_BTV, labels_BT, LabelSource.SAMPLED, torch.Generator().manual_seed(0))
    frequencies = drawn_BT.flatten().bincount(minlength=3) / 20000
    torch.testing.assert_close(frequencies, logits_BTV[0, 0].softmax(-1), rtol=0, atol=0.02)

"""Labels that count, and what each costs."""

import pytest
import torch
from largest_tensor import LargestTensor
from torch.nn.functional import cross_entropy

from ewc_hf.data import IGNORED, logits, next_tokens, token_nll


@pytest.fixture
def logits_BTV():
    return torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


LABELS_BT = torch.tensor([[3, 1, IGNORED, 2, 0], [IGNORED, 6, 5, IGNORED, IGNORED]])


def test_each_position_predicts_the_next_token():
    assert next_tokens(LABELS_BT).tolist() == [[1, IGNORED, 2, 0, IGNORED], [6, 5, IGNORED, IGNORED, IGNORED]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_cost_float32_nats(logits_BTV, dtype):
    logits_BTV = logits_BTV.to(dtype)
    got = token_nll(logits_BTV, LABELS_BT)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, token_nll(logits_BTV.float(), LABELS_BT), rtol=0, atol=0)


@pytest.mark.parametrize("shape", ["tokens", "classes"])
def test_the_gradient_of_the_nll(logits_BTV, shape):
    logits, labels = (logits_BTV, LABELS_BT) if shape == "tokens" else (logits_BTV[:, 0], LABELS_BT[:, 0])
    weights = torch.randn(labels.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = []
    for nll in (token_nll, _cross_entropy):
        leaf = logits.clone().requires_grad_()
        gradients += torch.autograd.grad((nll(leaf * 2, labels) * weights).sum(), leaf)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("piece", [1, 7, 20, 1000])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_pieces_change_nothing(logits_BTV, monkeypatch, dtype, piece):
    leaf = logits_BTV.to(dtype).requires_grad_()
    results = []
    for size in (piece, logits._PIECE):
        monkeypatch.setattr(logits, "_PIECE", size)
        nll_BT = token_nll(leaf, LABELS_BT)
        results.append((nll_BT, *torch.autograd.grad(nll_BT.sum(), leaf)))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_half_precision_logits_and_their_gradient_are_never_all_in_float32(logits_BTV, monkeypatch):
    monkeypatch.setattr(logits, "_PIECE", 14)
    leaf = logits_BTV.bfloat16().requires_grad_()
    with LargestTensor(torch.float32) as largest:
        token_nll(leaf, LABELS_BT).sum().backward()
    assert largest.numel == 14 and leaf.grad.dtype == torch.bfloat16


def test_no_position_costs_nothing():
    leaf = torch.empty(2, 0, 7, requires_grad=True)
    nll_BT = token_nll(leaf, torch.empty(2, 0, dtype=torch.long))
    nll_BT.sum().backward()
    assert nll_BT.shape == (2, 0) and leaf.grad.shape == (2, 0, 7)


def _cross_entropy(logits, labels):
    nll = cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.flatten(), ignore_index=-100, reduction="none")
    return nll.view(labels.shape)


def test_nll_is_zero_where_the_label_does_not_count(logits_BTV):
    nll_BT = token_nll(logits_BTV, LABELS_BT)
    for b in range(2):
        for t in range(5):
            label = LABELS_BT[b, t].item()
            p = logits_BTV[b, t].exp() / logits_BTV[b, t].exp().sum()
            assert nll_BT[b, t].item() == pytest.approx(0 if label == IGNORED else -p[label].log().item(), rel=1e-12)

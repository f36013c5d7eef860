"""MAS's objective and its gradient, a few positions at a time."""

import pytest
import torch
from largest_tensor import LargestTensor
from torch import nn

from ewc_hf.data import Batch, logits
from ewc_hf.importance.mas import MASOutput, squared_output_norm

LABELS_BT = torch.tensor([[3, 1, -100, 2, 0], [-100, 6, 5, -100, -100]])


def values_and_gradient(leaf_BTV, output):
    batch = Batch({"input": leaf_BTV}, LABELS_BT, torch.arange(2))
    values_B = squared_output_norm(output)(nn.Identity(), batch)
    return values_B, torch.autograd.grad(values_B @ torch.tensor([1.0, 3.0], dtype=values_B.dtype), leaf_BTV)[0]


def leaf(dtype):
    torch.manual_seed(0)
    return torch.randn(2, 5, 7, dtype=torch.float64).to(dtype).requires_grad_()


@pytest.mark.parametrize("piece", [1, 14, 1000])
@pytest.mark.parametrize("output", list(MASOutput))
def test_equals_the_formula(monkeypatch, output, piece):
    monkeypatch.setattr(logits, "_PIECE", piece)
    leaf_BTV = leaf(torch.float64)
    outputs_BTV = leaf_BTV.softmax(-1) if output is MASOutput.PROBABILITIES else leaf_BTV
    expected_B = (outputs_BTV.square().sum(-1) * (LABELS_BT != -100)).sum(1)
    (expected,) = torch.autograd.grad(expected_B @ torch.tensor([1.0, 3.0], dtype=torch.float64), leaf_BTV)
    values_B, gradient_BTV = values_and_gradient(leaf_BTV, output)
    torch.testing.assert_close(values_B, expected_B, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient_BTV, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("output", list(MASOutput))
def test_half_precision_logits_are_never_all_in_float32(monkeypatch, output):
    monkeypatch.setattr(logits, "_PIECE", 14)
    leaf_BTV = leaf(torch.bfloat16)
    with LargestTensor(torch.float32) as largest:
        _, gradient_BTV = values_and_gradient(leaf_BTV, output)
    assert largest.numel == 14 and gradient_BTV.dtype == torch.bfloat16

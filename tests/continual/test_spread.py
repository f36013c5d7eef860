"""How unevenly importance is spread, by kind of layer; and the report of it."""

import json

import numpy as np
import pytest
import torch
from conftest import gpt2, llama

from ewc_hf.continual import BINS, ConvNet, PathEnd, spread_by_kind, write_stabilization


def test_numbers():
    importance = {"a": torch.tensor([[0.0, 1.0], [10.0, 1.0]]), "layers.0.bias": torch.tensor([2.0, 2.0])}
    (weights, biases) = spread_by_kind({**importance, "layers.1.bias": torch.tensor([8.0])})
    assert (weights.kind, weights.num_weights, weights.mean, weights.largest, weights.zeros) == (
        "a",
        4,
        3.0,
        10.0,
        0.25,
    )
    assert (biases.kind, biases.num_weights, biases.mean, biases.zeros) == ("biases", 3, 4.0, 0.0)
    shares = dict(zip(BINS.round(2).tolist(), weights.shares, strict=False))
    assert {low: share for low, share in shares.items() if share} == {-0.5: 0.5, 0.5: 0.25}, "log10 of 1/3 and 10/3"


def test_no_importance_at_all():
    (kind,) = spread_by_kind({"a": torch.zeros(3)})
    assert kind.zeros == 1 and sum(kind.shares) == 0


@pytest.mark.parametrize(
    ("build", "kinds"),
    [
        (gpt2, {"embeddings", "norms", "attention", "biases", "feed-forward"}),
        (llama, {"embeddings", "norms", "attention", "feed-forward", "output layer"}),
        (ConvNet, {"convolutions", "norms", "biases", "output layer"}),
    ],
    ids=["GPT-2", "Llama", "ConvNet"],
)
def test_kinds(build, kinds):
    importance = {name: torch.ones_like(p) for name, p in build().named_parameters()}
    spread = spread_by_kind(importance)
    assert {one.kind for one in spread} == kinds
    assert all(sum(one.shares) == pytest.approx(1) for one in spread)
    assert sum(one.num_weights for one in spread) == sum(omega.numel() for omega in importance.values())


def test_report(tmp_path):
    spread = spread_by_kind({"a": torch.rand(50), "b": torch.zeros(3)})
    calm = [PathEnd(1.0, 0.1, 0.0, 0.0, 0.9, 0.8), PathEnd(10.0, 0.1, 0.5, 0.7, 0.95, 0.8)]
    wild = [calm[0], PathEnd(10.0, np.inf, 0.5, 0.9, 0.1, 0.1)]
    text = write_stabilization(tmp_path, {"net": spread}, {"SGD": {"plain": wild, "stabilized": calm}})
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| SGD")
    ]
    assert lines == [
        ["SGD", "plain", "10", "1", "0.900", "0.800"],
        ["SGD", "stabilized", "never", "10", "0.950", "0.800"],
    ]
    assert (tmp_path / "stabilization.md").read_text() == text
    assert json.loads((tmp_path / "stabilization.json").read_text())["paths"]["SGD"]["plain"][1]["farthest"] is None
    for name in ("spread", "paths", "norm"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")

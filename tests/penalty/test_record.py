"""What a checkpoint tells of its penalty."""

import pytest
import torch
from conftest import consolidation_of
from torch import optim

from ewc_hf import Coupling
from ewc_hf.penalty import penalty_record, recorded_penalty, require_same_penalty

PEAKS = [0.5, 0.25]


@pytest.fixture
def warming_up():
    """An optimizer of two groups at the first step of a warm-up, where the learning rate is zero."""
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in PEAKS]
    optimizer = optim.SGD([{"params": [w], "lr": lr} for w, lr in zip(weights, PEAKS, strict=True)])
    optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    assert [group["lr"] for group in optimizer.param_groups] == [0, 0]
    return optimizer


def record_of(model, optimizer, coupling=Coupling.LOSS, alpha=None):
    return penalty_record(consolidation_of(model).metadata, 3.0, coupling, alpha, optimizer)


def test_learning_rates_are_those_at_the_peak_and_not_of_a_warm_up(model, warming_up):
    assert record_of(model, warming_up)["peak_learning_rates"] == PEAKS


def test_without_a_scheduler_the_learning_rates_are_the_peak(model):
    assert record_of(model, optim.SGD(model.parameters(), lr=0.5))["peak_learning_rates"] == [0.5]


@pytest.mark.parametrize(("alpha", "recorded"), [(None, "peak learning rate"), (0.0, 0.0), (0.1, 0.1)])
def test_only_the_loss_coupling_has_an_alpha(model, warming_up, alpha, recorded):
    assert record_of(model, warming_up, alpha=alpha)["alpha"] == recorded
    assert "alpha" not in record_of(model, warming_up, Coupling.DECOUPLED, alpha)


@pytest.mark.parametrize("key", ["anchor", "importance", "ewc_lambda", "ewc_coupling", "alpha"])
def test_every_part_but_the_learning_rates_has_to_be_the_same(model, warming_up, key):
    recorded = record_of(model, warming_up)
    require_same_penalty(recorded, {**recorded, "peak_learning_rates": [0.0]})
    with pytest.raises(ValueError, match=f"got {key} other, not .*; pass the same one to resume"):
        require_same_penalty(recorded, {**recorded, key: "other"})
    with pytest.raises(ValueError, match="got none; pass the same one"):
        require_same_penalty(recorded, None)


def test_a_run_without_a_penalty_records_none():
    assert recorded_penalty({"TrainerControl": {"args": {}}}) is None

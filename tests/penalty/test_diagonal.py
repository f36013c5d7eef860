"""The term in single weights: how importance and anchor are held."""

import logging

import pytest
import torch
from conftest import consolidation_of, gpt2
from torch import optim

from ewc_hf import Coupling
from ewc_hf.engines import LocalParameters
from ewc_hf.penalty import CoupledPenalty, Diagonal

LAMBDA, ALPHA, LR = 5.0, 0.1, 0.1


def test_bfloat16_weights_start_without_a_penalty_and_with_a_warning(caplog):
    """Importance and anchor come from a float64 model; the anchor is rounded as the weights were."""
    consolidation, half = consolidation_of(gpt2()), gpt2().bfloat16()
    type(logging.getLogger("ewc_hf.penalty.diagonal")).warning_once.cache_clear()
    parameters = LocalParameters(half, optim.SGD(half.parameters(), lr=LR))
    penalty = CoupledPenalty([Diagonal(consolidation, parameters)], parameters, Coupling.LOSS, LAMBDA, [ALPHA])
    assert penalty.values()["ewc_penalty"] == 0
    assert "The weights are torch.bfloat16" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_bfloat16_state_keeps_the_anchor_where_it_loses_nothing(dtype):
    """The anchor of a checkpoint that was stored in bfloat16 does, another one stays as it is."""
    model = gpt2().to(dtype).float()
    parameters = LocalParameters(model, optim.SGD(model.parameters(), lr=LR))
    term = Diagonal(consolidation_of(model), parameters, bfloat16=True)
    assert {omega.dtype for omega in term.importance.values()} == {torch.bfloat16}
    assert term.anchor["transformer.wte.weight"].dtype == dtype
    assert CoupledPenalty([term], parameters, Coupling.LOSS, LAMBDA, [ALPHA]).values()["ewc_penalty"] == 0


@pytest.mark.parametrize("coupling", Coupling)
def test_an_offloaded_state_gives_the_same(coupling):
    """On the CPU the host's memory is the device's; that nothing is moved on a GPU cannot be seen here."""
    moved = []
    for offload in (False, True):
        model = gpt2().float()
        state, optimizer = consolidation_of(model), optim.SGD(model.parameters(), lr=LR)
        parameters = LocalParameters(model, optimizer)
        for p in model.parameters():
            p.data += 0.1
            p.grad = torch.ones_like(p)
        term = Diagonal(state, parameters, offload=offload)
        penalty = CoupledPenalty([term], parameters, coupling, LAMBDA, [ALPHA])
        penalty.add_gradient()
        penalty.pull(optimizer, (), {})
        moved.append([p.grad + p for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*moved, strict=True))

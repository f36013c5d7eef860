"""The term in single weights: how importance and anchor are held."""

import logging

import pytest
import torch
from conftest import consolidation_of, gpt2
from torch import nn, optim
from torch._subclasses.fake_tensor import FakeTensorMode

from ewc_hf import Coupling
from ewc_hf.engines import LocalParameters
from ewc_hf.penalty import CoupledPenalty, Diagonal, kernels

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


WIDTHS = {
    "wider": (torch.float64, torch.float32, torch.float32),
    "of other halves": (torch.float16, torch.bfloat16, torch.bfloat16),
    "narrower": (torch.bfloat16, torch.float32, torch.bfloat16),
}


@pytest.mark.parametrize(("stored", "trained", "held"), WIDTHS.values(), ids=WIDTHS)
def test_an_anchor_is_held_no_wider_than_the_weights_and_never_widened(stored, trained, held):
    """Either way a run starts without a penalty."""
    model = gpt2().to(stored)
    consolidation, model = consolidation_of(model), model.to(trained)
    parameters = LocalParameters(model, optim.SGD(model.parameters(), lr=LR))
    term = Diagonal(consolidation, parameters)
    assert {anchor.dtype for anchor in term.anchor.values()} == {held}
    assert CoupledPenalty([term], parameters, Coupling.LOSS, LAMBDA, [ALPHA]).values()["ewc_penalty"] == 0


@pytest.mark.parametrize(("offload", "device"), [(False, "meta"), (True, "cpu")])
def test_an_offloaded_state_stays_in_the_hosts_memory(offload, device):
    """The weights are on the meta device, in a GPU's place: as another one than the host's memory."""
    model = gpt2()
    consolidation, elsewhere = consolidation_of(model), model.to("meta")
    parameters = LocalParameters(elsewhere, optim.SGD(elsewhere.parameters(), lr=LR))
    term = Diagonal(consolidation, parameters, offload=offload)
    assert {t.device.type for state in (term.importance, term.anchor) for t in state.values()} == {device}


def test_what_a_gpu_reads_from_the_hosts_memory_is_pinned(monkeypatch):
    """The weight only says that it is on a GPU, and the driver's part, which needs one, is written down."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    elsewhere = nn.Linear(2, 2, bias=False)
    consolidation = consolidation_of(elsewhere)
    with FakeTensorMode():
        elsewhere.weight = nn.Parameter(torch.empty(2, 2, device="cuda"))
    term = Diagonal(consolidation, LocalParameters(elsewhere, optim.SGD(elsewhere.parameters())), offload=True)
    assert [*map(id, pinned)] == [id(term.importance["weight"]), id(term.anchor["weight"])]


@pytest.mark.parametrize("coupling", Coupling)
def test_an_offloaded_state_acts_on_weights_elsewhere(coupling):
    """Each kernel would refuse tensors of two devices, if the state did not come to the weights."""
    model = gpt2()
    consolidation, elsewhere = consolidation_of(model), model.to("meta")
    optimizer = optim.SGD(elsewhere.parameters(), lr=LR)
    parameters = LocalParameters(elsewhere, optimizer)
    for p in elsewhere.parameters():
        p.grad = torch.ones_like(p)
    penalty = CoupledPenalty(
        [Diagonal(consolidation, parameters, offload=True)], parameters, coupling, LAMBDA, [ALPHA]
    )
    penalty.add_gradient()
    penalty.pull(optimizer, (), {})


@pytest.mark.parametrize("coupling", Coupling)
def test_an_offloaded_state_gives_the_same(coupling):
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


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("coupling", Coupling)
def test_both_couplings_ask_for_compiled_kernels_where_they_are_to_be_fused(monkeypatch, coupling, fused):
    """That is written down, and the kernels act uncompiled."""
    asked = []
    monkeypatch.setattr(kernels, "_compiled", lambda kernel: asked.append(kernel) or kernel)
    monkeypatch.setattr(kernels, "_WORTH_FUSING", 1)
    model = gpt2()
    optimizer = optim.SGD(model.parameters(), lr=LR)
    parameters = LocalParameters(model, optimizer)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    term = Diagonal(consolidation_of(model), parameters, fused=fused)
    penalty = CoupledPenalty([term], parameters, coupling, LAMBDA, [ALPHA])
    penalty.add_gradient()
    penalty.pull(optimizer, (), {})
    assert len(asked) == (len(term.names) if fused else 0)

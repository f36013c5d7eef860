"""Pieces of tensors, on one device; the meta device stands for a GPU, as another one than the host's memory."""

import pytest
import torch

from ewc_hf.engines import chunks as module
from ewc_hf.engines import displacement, in_chunks

SHAPES = {"smaller than a chunk": (3,), "as large as one": (4,), "larger, with a remainder": (5, 3)}
ORDERS = {"one order": lambda t: t, "another order": lambda t: t.T.contiguous().T}


@pytest.fixture
def sizes(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 4)
    monkeypatch.setattr(module, "_FUSED_CHUNK", 8)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_writing_to_the_pieces_writes_to_the_tensor(shape, fused):
    first, other = torch.zeros(shape), torch.rand(shape)
    pieces = list(in_chunks(first, other, fused=fused))
    size = 8 if fused else 4
    assert [[t.numel() for t in piece] for piece in pieces] == [
        [len(piece)] * 2 for piece in first.view(-1).split(size)
    ]
    for mine, theirs in pieces:
        mine += theirs
    assert torch.equal(first, other)


@pytest.mark.usefixtures("sizes")
def test_tensors_in_different_orders_of_memory_come_whole():
    first, other = torch.zeros(5, 3), ORDERS["another order"](torch.rand(5, 3))
    ((mine, theirs),) = in_chunks(first, other)
    assert mine.shape == theirs.shape == (5, 3)
    assert torch.equal(theirs, other)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("shape", [(3, 1), (5, 3)], ids=["whole", "in pieces"])
def test_every_piece_comes_to_the_first_tensors_device(shape, order):
    weight, offloaded = torch.zeros(shape, device="meta"), order(torch.zeros(shape))
    pieces = [piece for pieces in in_chunks(weight, offloaded) for piece in pieces]
    assert {piece.device.type for piece in pieces} == {"meta"}
    assert offloaded.device.type == "cpu"


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float32], ids=str)
def test_a_displacement_is_exact_in_the_wider_dtype(narrow):
    weight, anchor = torch.tensor([1.0 + 2**-30, -3.0], dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=narrow)
    assert displacement(weight, anchor, torch.float64).tolist() == [2**-30, -5.0]

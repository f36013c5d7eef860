"""Parts of tensors, by arithmetic; `test_distributed.py` has the processes."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ewc_hf.engines import sharding
from ewc_hf.engines.sharding import Part, Sharding, local_part, part_of, row_blocks, sharded_like

SHAPES = [(), (1,), (7,), (4, 3), (5, 2, 3), (6, 1)]


def numbers(shape):
    return torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)


@given(st.sampled_from(SHAPES), st.data())
def test_a_part_is_a_run_of_elements(shape, data):
    whole = numbers(shape)
    start = data.draw(st.integers(0, whole.numel()))
    size = data.draw(st.integers(0, whole.numel() - start))
    got = Part(start, torch.Size((size,))).of(whole)
    assert torch.equal(got, whole.reshape(-1)[start : start + size])


def test_a_part_has_its_own_shape():
    whole = numbers((6, 4))
    assert torch.equal(Part(8, torch.Size((2, 4))).of(whole), whole[2:4])
    assert torch.equal(Part(0, whole.shape).of(whole.T.contiguous().T), whole)


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("num_rows", [1, 2, 5, 8])
def test_rows_are_spread_as_torch_spreads_them(processes, num_rows):
    rows = list(range(num_rows))
    expected = [chunk.tolist() for chunk in torch.arange(num_rows).chunk(processes)]
    expected += [[]] * (processes - len(expected))
    held = Sharding(SimpleNamespace(), processes, 0, num_rows)
    assert [rows[slice(*held.rows_of(index))] for index in range(processes)] == expected


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("elements", [1, 4, 1000])
def test_blocks_of_rows_are_the_tensor(monkeypatch, shape, elements):
    monkeypatch.setattr(sharding, "_BLOCK_ELEMENTS", elements)
    blocks = list(row_blocks(numbers(shape)))
    row = math.prod(shape[1:])
    assert all(block.numel() <= max(row, elements) for block in blocks)
    assert torch.equal(torch.cat([block.reshape(-1) for block in blocks]), numbers(shape).reshape(-1))


def test_a_tensor_without_rows_has_a_block():
    assert [block.shape for block in row_blocks(torch.empty(0, 3))] == [(0, 3)]


def test_what_is_whole_stays_as_it_is():
    parameter = torch.nn.Parameter(numbers((4, 3)))
    assert part_of(parameter) == Part(0, parameter.shape)
    assert local_part(parameter).data_ptr() == parameter.data_ptr()
    other = numbers((4, 3))
    assert sharded_like(parameter, other) is other

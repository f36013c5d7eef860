"""Rows and their answers as columns of a table.

input_ids     list<int32>                          T tokens
answer_ids    list<fixed_size_list<int32>[A]>      T x A: the likeliest tokens, and draws from all others
log_probs     list<fixed_size_list<float16>[A]>    T x A, in nats; float64 of a float64 model
rest          list<float32>                        T, the mass of all but the likeliest; float64 likewise
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .answers import Answers

COLUMNS = ("input_ids", "answer_ids", "log_probs", "rest")


def to_table(rows: Sequence[Tensor], answers: Sequence[Answers]) -> pa.Table:
    """Return rows of tokens, [T] each, and the answers to them as a table."""
    exact = answers[0].log_probs.dtype == torch.float64
    half, single = (np.float64, np.float64) if exact else (np.float16, np.float32)
    columns = (
        _column(rows, np.int32),
        _column([of_row.ids for of_row in answers], np.int32),
        _column([of_row.log_probs for of_row in answers], half),
        _column([of_row.rest for of_row in answers], single),
    )
    return pa.table(dict(zip(COLUMNS, columns, strict=True)))


def to_tensors(table: pa.Table) -> tuple[Tensor, Tensor, Answers]:
    """Return the rows of a table: token ids [B, T], their lengths [B], and the answers, padded on the right with 0."""
    ids, answer_ids, log_probs, rest = (_tensors(table[name].combine_chunks()) for name in COLUMNS)
    lengths = torch.tensor([len(row) for row in ids])
    answers = Answers(_padded(answer_ids).long(), _padded(log_probs), _padded(rest))
    return _padded(ids).long(), lengths, answers


def digest(table: pa.Table) -> str:
    """Return the SHA-256 (hex) of the rows of a table and their answers, wherever and in how many pieces they lie."""
    sha256 = hashlib.sha256()
    for name in COLUMNS:
        for row in _tensors(table[name]):
            sha256.update(row.numpy().tobytes())
    return sha256.hexdigest()


def lengths_of(table: pa.Table) -> list[int]:
    """Return how many tokens each row of a table has."""
    return pc.list_value_length(table["input_ids"]).to_pylist()


def _column(tensors: Sequence[Tensor], dtype: type) -> pa.ListArray:
    """Return a column of one list an element, of vectors where the tensors have two dimensions."""
    values = pa.array(torch.cat(list(tensors)).numpy().astype(dtype).ravel())
    if tensors[0].dim() == 2:
        values = pa.FixedSizeListArray.from_arrays(values, tensors[0].shape[1])
    offsets = np.cumsum([0, *map(len, tensors)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _tensors(column: pa.ListArray | pa.ChunkedArray) -> list[Tensor]:
    """Return each list of a column as a tensor."""
    pieces = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return list(chain.from_iterable(map(_of_piece, pieces)))


def _of_piece(column: pa.ListArray) -> list[Tensor]:
    values, lengths = column.flatten(), column.value_lengths().to_pylist()
    if isinstance(values, pa.FixedSizeListArray):
        numbers = values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), values.type.list_size)
    else:
        numbers = values.to_numpy(zero_copy_only=False)
    return list(torch.from_numpy(numbers.copy()).split(lengths))


def _padded(tensors: list[Tensor]) -> Tensor:
    return pad_sequence(tensors, batch_first=True)

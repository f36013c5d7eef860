"""Which rows ride in which batch, so that a resumed run, and another number of processes, sees the same."""

from __future__ import annotations

from functools import lru_cache

import torch


def rows_at(places: range, num_rows: int, seed: int) -> list[int]:
    """Return which row stands at each place of an endless sequence: one random order of all rows after another."""
    return [_order(place // num_rows, num_rows, seed)[place % num_rows] for place in places]


@lru_cache(maxsize=2)
def _order(number: int, num_rows: int, seed: int) -> list[int]:
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed * 1_000_003 + number)).tolist()

"""Which rows ride when."""

from itertools import chain

import pytest

from ewc_hf.rehearsal.order import rows_at

NUM_ROWS, SEED = 7, 3


def test_each_pass_has_every_row_once_in_an_order_of_its_own():
    passes = [rows_at(range(start, start + NUM_ROWS), NUM_ROWS, SEED) for start in range(0, 5 * NUM_ROWS, NUM_ROWS)]
    assert all(sorted(rows) == list(range(NUM_ROWS)) for rows in passes)
    assert len(set(map(tuple, passes))) == len(passes)


@pytest.mark.parametrize("together", [1, 2, 3, 4, 10, 20])
def test_however_the_places_are_cut_the_order_is_the_same(together):
    """So that another number of processes, or a run that goes on in the middle, sees the same rows."""
    whole = rows_at(range(60), NUM_ROWS, SEED)
    cut = [rows_at(range(start, start + together), NUM_ROWS, SEED) for start in range(0, 60, together)]
    assert list(chain.from_iterable(cut)) == whole
    assert [rows_at(range(place, place + 1), NUM_ROWS, SEED)[0] for place in reversed(range(60))] == whole[::-1]


def test_another_seed_is_another_order():
    assert rows_at(range(NUM_ROWS), NUM_ROWS, SEED) != rows_at(range(NUM_ROWS), NUM_ROWS, SEED + 1)


def test_one_row_rides_every_time():
    assert rows_at(range(5), 1, SEED) == [0] * 5

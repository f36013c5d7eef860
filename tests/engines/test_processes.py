"""What one process alone does; `test_distributed.py` has several."""

import numpy as np
import pytest

from ewc_hf.engines import add_up, all_agree, divided, launched, num_processes, process_index, united


@pytest.mark.parametrize("collective", [False, True])
def test_one_process_does_all_the_work(collective):
    assert divided([3, 1, 2], lambda item: item * item, collective) == [9, 1, 4]
    assert divided([], str, collective) == []


@pytest.mark.parametrize("collective", [False, True])
def test_an_error_of_the_work_is_raised(collective):
    def work(item):
        raise ValueError(f"expected no {item}")

    with pytest.raises(ValueError, match="expected no 1"):
        divided([1, 2], work, collective)


def test_alone_nothing_is_exchanged():
    array = np.array([1.0, 2.0])
    add_up(array)
    assert array.tolist() == [1, 2]
    assert (num_processes(), process_index(), launched().num_processes) == (1, 0, 1)
    assert all_agree(True, collective=False) and not all_agree(False, collective=False)
    assert united({"a"}, collective=False) == {"a"}

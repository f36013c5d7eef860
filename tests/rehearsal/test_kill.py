"""A process that is killed with signal 9 while it makes rows loses one batch at most."""

import signal

import pytest
from killed_rehearsal import WAYS, make
from launching import exit_code
from rehearsed import bits

from ewc_hf.rehearsal import Rehearsal

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("datasets_cache")]


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_process_loses_one_batch_at_most(tmp_path, way):
    """Killed before its third batch, then while the next two are written: half of a file is none."""
    whole = WAYS[way](None)
    for after, while_writing, kept in ((2, False, 2), (1, True, 2), (2, True, 3)):
        assert exit_code(make, tmp_path, way, after, while_writing) == -signal.SIGKILL
        assert len(list((tmp_path / "unfinished").glob("rows-*.parquet"))) == kept
    assert exit_code(make, tmp_path, way) == 0
    assert (tmp_path / "made").read_text() == "3"
    assert not (tmp_path / "unfinished").exists()
    resumed = Rehearsal.from_pretrained(tmp_path)
    assert bits(resumed) == bits(whole) and resumed.metadata == whole.metadata

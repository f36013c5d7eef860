"""The embedded default, run whole: two minutes on two cores."""

import pytest

from ewc_hf.demo import run_demo
from ewc_hf.study.curves import removed_at

pytestmark = pytest.mark.slow
EWC, REHEARSAL, BOTH = "EWC (Fisher), decoupled", "self-rehearsal", "EWC (Fisher), decoupled 5 + self-rehearsal"


@pytest.fixture(scope="module")
def removed(tmp_path_factory):
    """Forgetting removed where the task NLL is 5% above plain fine-tuning's, by curve."""
    records = run_demo(str(tmp_path_factory.mktemp("demo")))
    return {row.curve: row.forgetting_removed for row in removed_at(records, 0.05)}


def test_ewc_removes_some_of_the_forgetting(removed):
    assert 0.25 < removed[EWC] < 0.6


@pytest.mark.parametrize("curve", [REHEARSAL, BOTH])
def test_self_rehearsal_removes_most_of_it_alone_and_with_ewc(removed, curve):
    assert removed[curve] > removed[EWC] + 0.15
    assert removed[curve] > 0.6

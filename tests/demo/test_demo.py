"""The embedded default, run whole: about two minutes."""

import pytest

from ewc_hf.demo import run_demo
from ewc_hf.study.records import mean_and_interval

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def means(tmp_path_factory):
    """Forgetting removed and task NLL of each setting, means over its seeds."""
    records = run_demo(str(tmp_path_factory.mktemp("demo")))
    found = {}
    for name in {record.name for record in records if record.seed is not None}:
        runs = [record for record in records if record.name == name]
        removed, _ = mean_and_interval([run.forgetting_removed for run in runs])
        task_nll, _ = mean_and_interval([run.task_nll for run in runs])
        found[name] = removed, task_nll
    return found


@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
def test_ewc_removes_half_of_the_forgetting_within_a_tenth_of_the_task_nll(means, coupling):
    _, plain = means["plain"]
    ewc = [result for name, result in means.items() if name.startswith(f"fisher-{coupling}")]
    assert max(removed for removed, task_nll in ewc if task_nll <= 1.1 * plain) >= 0.5

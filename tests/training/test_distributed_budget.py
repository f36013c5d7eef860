"""Two processes keep a budget of forgetting as one does: real runs on CPUs."""

import json
from importlib.util import find_spec

import distributed_budget as budget
import distributed_cases as cases
import pytest
from launching import run_together
from safetensors.torch import load_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("budget")
    cases.write_models(folder)
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    return budget.train("one", folder, budget.texts(folder))


@pytest.mark.parametrize("engines", budget.ENGINES)
def test_two_processes_end_where_one_does(folder, alone, engines):
    if engines == "zero" and find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed: pip install -e '.[deepspeed]'")
    run_together(budget.main, folder, engines)
    expected, metrics = alone
    assert 0 < metrics["forgetting_t"] < 1 and 0.95 < metrics["forgetting"] / budget.BUDGET <= 1
    for engine in budget.ENGINES[engines]:
        got = load_file(folder / f"budget-{engine}.safetensors")
        told = json.loads((folder / f"budget-{engine}.json").read_text())
        assert told == pytest.approx(metrics, rel=1e-3)
        assert max((got[name] - w).abs().max().item() for name, w in expected.items()) < 1e-4
    if engines == "zero":
        assert (
            "expected weights in the model for max_forgetting, got ones that ZeRO-3"
            in (folder / "said.txt").read_text()
        )

"""Runs whose process is killed with signal 9, resumed in another process, against runs that nobody killed."""

import signal

import pytest
import torch
from killed_run import RESULT, Moment, train
from launching import exit_code
from safetensors import safe_open

pytestmark = pytest.mark.slow

OPTIONS = {
    "decoupled": {"ewc_coupling": "decoupled"},
    "loss": {"ewc_coupling": "loss"},
    "accumulation": {"ewc_coupling": "decoupled", "gradient_accumulation_steps": 2},
    "synaptic": {"ewc_synaptic": True},
}
CASES = [
    ("decoupled", [Moment.BETWEEN_SAVES], 6),
    ("decoupled", [Moment.AFTER_THE_MODEL], 4),
    ("decoupled", [Moment.IN_THE_OPTIMIZER], 4),
    ("decoupled", [Moment.IN_THE_STATE], 4),
    ("decoupled", [Moment.IN_THE_ROTATION], 6),
    ("decoupled", [Moment.IN_THE_STATE, Moment.IN_THE_OPTIMIZER, Moment.IN_THE_ROTATION], 6),
    ("loss", [Moment.BETWEEN_SAVES], 6),
    ("loss", [Moment.IN_THE_OPTIMIZER], 4),
    ("accumulation", [Moment.BETWEEN_SAVES], 6),
    ("accumulation", [Moment.IN_THE_STATE], 4),
    ("synaptic", [Moment.BETWEEN_SAVES], 6),
    ("synaptic", [Moment.AFTER_THE_MODEL], 4),
]


def result(folder):
    with safe_open(folder / RESULT, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, int(file.metadata()["began"])


@pytest.fixture(scope="module")
def uninterrupted(request, tmp_path_factory):
    """The options of a run, and the weights it ends with."""
    options, folder = OPTIONS[request.param], tmp_path_factory.mktemp("whole")
    assert exit_code(train, folder, options) == 0
    return options, result(folder)[0]


@pytest.mark.parametrize(
    ("uninterrupted", "moments", "step"),
    CASES,
    ids=[" ".join([run, *(moment.name for moment in moments)]) for run, moments, _ in CASES],
    indirect=["uninterrupted"],
)
def test_a_killed_run_resumes_and_ends_as_if_it_had_lived(tmp_path, uninterrupted, moments, step):
    options, expected = uninterrupted
    for times, moment in enumerate(moments):
        assert exit_code(train, tmp_path, options, times > 0, moment) == -signal.SIGKILL
    assert exit_code(train, tmp_path, options, True) == 0
    weights, began = result(tmp_path)
    assert began == step
    assert weights.keys() == expected.keys()
    for name in expected:
        assert torch.equal(weights[name], expected[name]), name

"""Where a model goes by the launch config."""

import pytest
from accelerate.state import AcceleratorState, PartialState
from tiny import tiny_gpt2

from ewc_hf.engines import place


@pytest.fixture
def fresh_state():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_model_goes_to_the_process_s_device(fresh_state):
    model = tiny_gpt2()
    assert place(model) is model
    assert model.device.type == PartialState().device.type


def test_fsdp_on_a_cpu_is_refused(fresh_state, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with pytest.raises(ValueError, match=r"expected FSDP of version 2 on GPUs, got NO on cpu; set 'fsdp_version: 2'"):
        place(tiny_gpt2())

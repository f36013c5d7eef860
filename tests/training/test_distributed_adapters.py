"""Adapters in two processes are trained and held as in one, or refused: real runs on CPUs."""

import json
from dataclasses import replace

import distributed_adapters as adapters
import distributed_cases as cases
import distributed_run as run
import pytest
import torch
from launching import run_together
from safetensors.torch import load_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),  # PEFT asks for it
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    cases.write_models(folder)
    run_together(adapters.main, folder)
    return folder


@pytest.mark.parametrize("case", adapters.CASES, ids=lambda case: case.name)
def test_two_processes_hold_adapters_as_one(folder, case):
    got = load_file(folder / f"adapted-{case.name}.safetensors")
    alone, logged = run.train(replace(case, engine="one"), folder, adapt=adapters.adapt)
    start = dict(adapters.adapt(cases.MODELS["llama"]().double()).named_parameters())
    trained = [name for name in alone if "lora_" in name]
    assert trained and logged["ewc_penalty"] > 0
    for name in trained:
        assert not torch.equal(got[name], start[name])
        torch.testing.assert_close(got[name], alone[name], rtol=0, atol=1e-8)


@pytest.mark.parametrize("engine", adapters.SHARDED)
def test_adapters_and_bases_that_an_engine_shards_are_refused(folder, engine):
    expected = "and the weights that they adapt, whole in each process, got ones that FSDP2 or DeepSpeed shards; train"
    assert expected in json.loads((folder / "said.json").read_text())[engine]

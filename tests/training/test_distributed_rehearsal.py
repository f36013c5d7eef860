"""Two processes rehearse as one: real runs on CPUs, compared with this process."""

import json
from dataclasses import replace
from importlib.util import find_spec

import distributed_cases as cases
import distributed_rehearsal as run
import pytest
import torch
from launching import run_together
from safetensors.torch import load_file

from ewc_hf.rehearsal import Rehearsal

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rehearsal")
    cases.write_models(folder)
    run.answered().save_pretrained(folder / "answered")
    return folder


@pytest.fixture(scope="module")
def launched(folder):
    """Launches each session once."""
    done = set()

    def once(engine):
        engines = next(engines for engines, members in run.ENGINES.items() if engine in members)
        if engines == "zero" and find_spec("deepspeed") is None:
            pytest.skip("DeepSpeed is not installed: pip install -e '.[deepspeed]'")
        if engines not in done:
            run_together(run.main, folder, engines)
            done.add(engines)

    return once


@pytest.fixture(scope="module")
def alone(folder):
    known = {}

    def train(case):
        case = replace(case, engine="one")
        if case not in known:
            known[case] = run.train(case, folder)
        return known[case]

    return train


@pytest.mark.parametrize("case", run.CASES, ids=lambda case: case.name)
def test_two_processes_rehearse_as_one(launched, folder, alone, case):
    """Float32: round-off, which Adam's division by a small root enlarges somewhat. Float64: far below 1e-8."""
    launched(case.engine)
    bound = 1e-8 if case.dtype is torch.float64 else 1e-5
    (expected, kls), got = alone(case), load_file(folder / f"rehearsed-{case.name}.safetensors")
    assert max((got[name] - w).abs().max().item() for name, w in expected.items() if name in got) < bound
    assert expected.keys() - got.keys() <= {"lm_head.weight"}
    assert json.loads((folder / f"rehearsed-{case.name}.json").read_text()) == pytest.approx(kls, rel=1e-4)
    assert len(kls) == cases.STEPS and min(kls) > 0.01


@pytest.mark.parametrize("engine", [engine for engines in run.ENGINES.values() for engine in engines])
def test_a_resumed_run_ends_as_an_uninterrupted_one(launched, folder, engine):
    launched(engine)
    case = next(case for case in run.CASES if case.engine == engine and case.accumulation == 4)
    got, expected = (load_file(folder / f"rehearsed-{name}.safetensors") for name in (f"again-{engine}", case.name))
    assert all(torch.equal(got[name], w) for name, w in expected.items())


@pytest.mark.parametrize("name", ["answered", "generated"])
def test_two_processes_write_the_rows_of_one(launched, folder, name):
    launched("ddp")
    got, expected = Rehearsal.from_pretrained(folder / f"{name}-together"), getattr(run, name)()
    assert got.rows[:] == expected.rows[:]
    assert got.metadata == expected.metadata

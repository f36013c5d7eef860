"""Two processes give what one gives: real runs on CPUs, compared with this process."""

import builtins
import json
import re
from dataclasses import replace
from importlib.util import find_spec

import distributed_cases as cases
import distributed_run as run
import pytest
import torch
from distributed_alone import FAILURES
from launching import run_together
from safetensors.torch import load_file
from torch.multiprocessing import ProcessExitedException

from ewc_hf import Consolidation

pytestmark = pytest.mark.slow

TORCH_CASES = [case for case in cases.CASES if not case.engine.startswith("zero")]
ZERO_CASES = [case for case in cases.CASES if case.engine.startswith("zero")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    cases.write_models(folder)
    return folder


def run_to_its_end(folder, engines, processes=2):
    run_together(run.main, folder, engines, processes=processes)
    return folder


@pytest.fixture(scope="module")
def torch_run(folder):
    return run_to_its_end(folder, "torch")


@pytest.fixture(scope="module")
def zero_run(folder):
    if find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed: pip install -e '.[deepspeed]'")
    return run_to_its_end(folder, "zero")


@pytest.fixture(scope="module")
def four_run(torch_run):
    return run_to_its_end(torch_run, "move", processes=4)


@pytest.fixture(scope="module")
def alone(folder):
    """The same training in this process, once."""
    known = {}

    def train(case):
        case = replace(case, engine="one")
        if case not in known:
            known[case] = run.train(case, folder)
        return known[case]

    return train


def compare(case, folder, alone):
    """Float32: round-off, which Adam's division by a small root enlarges somewhat. Float64: far below 1e-8."""
    bound = 1e-8 if case.dtype is torch.float64 else 1e-5
    expected, expected_logs = alone(replace(case, engine="one"))
    got = load_file(folder / f"{case.name}.safetensors")
    assert max((got[name] - w).abs().max().item() for name, w in expected.items() if name in got) < bound
    assert expected.keys() - got.keys() <= {"lm_head.weight"}
    logs = json.loads((folder / f"{case.name}.json").read_text())
    assert logs == pytest.approx(expected_logs, rel=1e-3 if case.dtype is torch.float32 else 1e-6)
    assert logs["ewc_penalty"] > 0


@pytest.mark.parametrize("case", TORCH_CASES, ids=lambda case: case.name)
def test_two_processes_train_as_one(torch_run, alone, case):
    compare(case, torch_run, alone)


@pytest.mark.parametrize("case", ZERO_CASES, ids=lambda case: case.name)
def test_zero_trains_as_one_process(zero_run, alone, case):
    compare(case, zero_run, alone)


@pytest.mark.parametrize("case", TORCH_CASES[:2], ids=lambda case: case.name)
def test_the_penalty_matters_here(alone, case):
    """Without it the weights would be others by far more than the bounds above."""
    penalized, plain = alone(case)[0], alone(replace(case, ewc_lambda=0.0))[0]
    assert max((penalized[name] - w).abs().max().item() for name, w in plain.items()) > 1e-4


@pytest.mark.parametrize("case", cases.HELD_CASES, ids=lambda case: case.engine)
def test_bfloat16_training_moves_nothing_under_an_infinite_lambda(request, folder, case):
    """The pull is that of the master weights, after the optimizer's step, before anything is gathered or rounded.

    DeepSpeed's model then holds them rounded, unless it was loaded in float32 parts.
    """
    request.getfixturevalue("zero_run" if case.engine.startswith("zero") else "torch_run")
    got = load_file(folder / f"{case.name}.safetensors")
    anchor = load_file(folder / f"{case.model}-{case.dtype}" / "model.safetensors")
    assert got.keys() == anchor.keys()
    for name, weight in got.items():
        rounded = case.engine.startswith("zero") and torch.equal(weight, anchor[name].bfloat16().float())
        assert rounded or torch.equal(weight, anchor[name]), name


@pytest.mark.parametrize("engine", cases.RESUMED)
def test_the_penalty_holds_as_many_numbers_as_the_optimizer(request, folder, engine):
    """One process's part of them, which ZeRO fills up to whole blocks."""
    request.getfixturevalue("zero_run" if engine.startswith("zero") else "torch_run")
    held = json.loads((folder / f"resumed-{engine}.json").read_text())
    parameters = sum(p.numel() for p in cases.MODELS["llama"]().parameters())
    share = parameters if engine == "ddp" else parameters / 2
    assert held["importance"] == held["anchor"] == pytest.approx(share, rel=0.02)
    assert 1 <= held["moments"] / (held["importance"] + held["anchor"]) < 1.05


@pytest.mark.parametrize("engine", cases.RESUMED)
def test_a_resumed_run_ends_as_an_uninterrupted_one(request, folder, engine):
    request.getfixturevalue("zero_run" if engine.startswith("zero") else "torch_run")
    got = load_file(folder / f"resumed-{engine}.safetensors")
    uninterrupted = load_file(folder / f"{cases.Case(engine, 'decoupled', 1, 'adamw').name}.safetensors")
    assert all(torch.equal(got[name], w) for name, w in uninterrupted.items())


def test_a_run_that_was_killed_while_it_saved_ends_as_one_that_was_not(torch_run):
    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        run_together(run.main, torch_run, "kill")
    checkpoints = {path.name: (path / "trainer_state.json").is_file() for path in (torch_run / "killed").iterdir()}
    assert checkpoints == {"checkpoint-2": True, "checkpoint-4": False}
    got = load_file(run_to_its_end(torch_run, "resume") / "killed.safetensors")
    uninterrupted = load_file(torch_run / f"{cases.Case('fsdp2', 'decoupled', 1, 'adamw').name}.safetensors")
    assert all(torch.equal(got[name], w) for name, w in uninterrupted.items())


def test_a_run_of_two_processes_is_resumed_by_one(torch_run, alone):
    case = cases.Case("one", "decoupled", 1, "adamw")
    trainer = run.make_trainer(case, torch_run, ewc_synaptic=True)
    trainer.train(resume_from_checkpoint=str(torch_run / "resumed" / "ddp" / "checkpoint-3"))
    for name, w in alone(case)[0].items():
        torch.testing.assert_close(run.weights(trainer)[name], w, rtol=0, atol=1e-8)
    learned = Consolidation.from_pretrained(torch_run / "resumed" / "ddp" / "learned")
    assert_same_importance(trainer.synaptic_consolidation(), learned, 1e-8)


def test_a_sharded_run_of_two_processes_is_resumed_by_four(four_run, alone):
    got = load_file(four_run / "moved.safetensors")
    for name, w in alone(cases.Case("one", "decoupled", 1, "adamw"))[0].items():
        torch.testing.assert_close(got[name], w, rtol=0, atol=1e-8)
    learned, expected = (four_run / folder / "learned" for folder in ("moved", "resumed/fsdp2"))
    assert_same_importance(Consolidation.from_pretrained(learned), Consolidation.from_pretrained(expected), 1e-8)


def assert_same_importance(got, expected, bound):
    assert got.importance.keys() == expected.importance.keys()
    for name, omega in expected.importance.items():
        assert (got.importance[name] - omega).abs().max() <= bound * omega.abs().max(), name
        trained_apart = 0 if bound < 1e-9 else bound
        torch.testing.assert_close(got.anchor[name], expected.anchor[name], rtol=0, atol=trained_apart)


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
@pytest.mark.parametrize("name", cases.ESTIMATES)
def test_two_processes_estimate_as_one(torch_run, engine, name):
    if (engine, name) == ("fsdp2", "signal"):
        pytest.skip("the signal of sharded layers is refused")
    expected, got = run.estimate(name), Consolidation.from_pretrained(torch_run / f"{engine}-{name}")
    assert_same_importance(got, expected, 1e-10)
    assert got.metadata["num_tokens"] == expected.metadata["num_tokens"]
    assert got.metadata["anchor"]["fingerprint"] == expected.metadata["anchor"]["fingerprint"]


@pytest.mark.parametrize("name", cases.HYBRID_ESTIMATES)
def test_two_copies_in_two_parts_each_estimate_as_one_process(four_run, name):
    assert_same_importance(Consolidation.from_pretrained(four_run / f"hybrid-{name}"), run.estimate(name), 1e-10)


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_synaptic_intelligence_of_two_processes_is_that_of_one(torch_run, engine):
    expected = run.synaptic("one", torch_run)
    assert_same_importance(Consolidation.from_pretrained(torch_run / f"synaptic-{engine}"), expected, 1e-4)


def test_two_processes_measure_the_same_perplexity(torch_run):
    got, expected = json.loads((torch_run / "perplexity.json").read_text()), run.perplexity()
    assert got["nll"] == pytest.approx(expected["nll"], rel=1e-12)
    assert [d["num_tokens"] for d in got["documents"]] == [d["num_tokens"] for d in expected["documents"]]


def test_no_process_makes_a_whole_importance_under_fsdp2(torch_run):
    assert json.loads((torch_run / "whole_tensors.json").read_text()) == {"training": [], "estimating": []}


REFUSED = {
    "coupling": "expected ewc_coupling='decoupled' under DeepSpeed",
    "no ZeRO": "expected DeepSpeed with ZeRO stage 1, 2 or 3 alone, got AdamW; set 'stage'",
    "part of it offloaded": "expected all of the optimizer offloaded or nothing, got a part of it; set 'ratio'",
    "ZenFlow": "expected DeepSpeed with ZeRO stage 1, 2 or 3 alone, got DeepSpeedZeroOptimizer_Stage3; set 'stage'",
    "on a disk": "expected the optimizer's state in memory, got 'model.embed_tokens.weight' on a disk; offload it",
    "nothing": "nothing",
}


@pytest.mark.parametrize("asked", REFUSED)
def test_what_zero_cannot_honour_is_refused(zero_run, asked):
    assert json.loads((zero_run / "refused.json").read_text())[asked].startswith(REFUSED[asked])


@pytest.mark.parametrize(("failure", "expected"), FAILURES.items(), ids=FAILURES)
def test_where_one_process_fails_all_raise(torch_run, failure, expected):
    said = json.loads((torch_run / "failures.json").read_text())[failure]
    if isinstance(expected, str):
        assert all(kind == "ValueError" and re.search(expected, words) for kind, words in said)
    else:
        assert issubclass(getattr(builtins, said[expected][0]), OSError)
        assert said[1 - expected][0] == "RuntimeError"
        assert said[1 - expected][1].startswith(f"process {expected} failed: {said[expected][0]}: ")
    assert not [*torch_run.glob("full/*"), *torch_run.glob("renamed/*")]


@pytest.mark.parametrize("engine", ["fsdp2", "zero2"])
def test_one_process_may_log_alone(request, folder, engine):
    request.getfixturevalue("zero_run" if engine == "zero2" else "torch_run")
    logs = json.loads((folder / f"logged-{engine}.json").read_text())
    assert [log["step"] for log in logs if log["loss"] < 0] == [0, 1, 2, 3, 4]
    assert [log["step"] for log in logs if log["loss"] >= 0] == [1, 2, 3, 4, 5]
    assert all(("ewc_penalty" in log) == (log["loss"] >= 0) for log in logs)


def test_a_second_training_of_two_processes_goes_on_from_what_is_held(torch_run):
    assert json.loads((torch_run / "twice.json").read_text()) is True

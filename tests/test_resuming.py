"""Runs whose process is killed with signal 9, resumed in another process, against runs that nobody killed."""

import logging
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
from ewc_hf.checkpoints import last_complete_checkpoint, remove_half_written
from killed_run import RESULT, Moment, train, trainer_of
from safetensors import safe_open
from transformers import Trainer

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


@pytest.fixture(scope="module")
def processes():
    """Each process is forked from one that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ewc_hf", "transformers.models.gpt2.modeling_gpt2"])
    return context


def exit_code(processes, *args):
    process = processes.Process(target=train, args=args)
    process.start()
    process.join()
    return process.exitcode


def result(folder):
    with safe_open(folder / RESULT, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, int(file.metadata()["began"])


@pytest.fixture(scope="module")
def uninterrupted(request, processes, tmp_path_factory):
    """The options of a run, and the weights it ends with."""
    options, folder = OPTIONS[request.param], tmp_path_factory.mktemp("whole")
    assert exit_code(processes, folder, options) == 0
    return options, result(folder)[0]


@pytest.mark.parametrize(
    ("uninterrupted", "moments", "step"),
    CASES,
    ids=[" ".join([run, *(moment.name for moment in moments)]) for run, moments, _ in CASES],
    indirect=["uninterrupted"],
)
def test_a_killed_run_resumes_and_ends_as_if_it_had_lived(tmp_path, processes, uninterrupted, moments, step):
    options, expected = uninterrupted
    for times, moment in enumerate(moments):
        assert exit_code(processes, tmp_path, options, times > 0, moment) == -signal.SIGKILL
    assert exit_code(processes, tmp_path, options, True) == 0
    weights, began = result(tmp_path)
    assert began == step
    assert weights.keys() == expected.keys()
    for name in expected:
        assert torch.equal(weights[name], expected[name]), name


def checkpoint(folder, step, state: str | None = "{}", *others):
    path = Path(folder) / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").touch()
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    for name in others:
        (path / name).touch()
    return path


def test_the_highest_step_is_the_last(tmp_path):
    for step in (9, 100, 20):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-200").touch()
    checkpoint(tmp_path, "300-copy")
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")


@pytest.mark.parametrize("state", [None, "", '{"epoch": 1', '{"epoch": "\xe9"}'.encode("latin-1")], ids=repr)
def test_half_written_checkpoints_are_skipped_and_named(tmp_path, caplog, state):
    checkpoint(tmp_path, 2)
    broken = checkpoint(tmp_path, 4, None)
    if state is not None:
        (broken / "trainer_state.json").write_bytes(state if isinstance(state, bytes) else state.encode())
    with caplog.at_level(logging.WARNING):
        assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    (record,) = caplog.records
    assert "checkpoint-4" in record.message and "checkpoint-2" not in record.message


def test_a_complete_last_checkpoint_is_found_without_a_word(tmp_path, caplog):
    checkpoint(tmp_path, 2, None)
    checkpoint(tmp_path, 4)
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    assert not caplog.records


def test_further_files_can_be_required(tmp_path):
    checkpoint(tmp_path, 2, "{}", "a", "b")
    checkpoint(tmp_path, 4, "{}", "a")
    assert last_complete_checkpoint(tmp_path, also=["a"]) == str(tmp_path / "checkpoint-4")
    assert last_complete_checkpoint(tmp_path, also=["a", "b"]) == str(tmp_path / "checkpoint-2")
    assert last_complete_checkpoint(tmp_path, also=["c"]) is None


def test_no_folder_has_no_checkpoint(tmp_path):
    assert last_complete_checkpoint(tmp_path / "none") is None


def test_only_later_checkpoints_without_a_whole_state_are_removed(tmp_path):
    for step, state in ((1, None), (2, "{}"), (4, None), (6, "{"), (8, "{}")):
        checkpoint(tmp_path, step, state)
    remove_half_written(tmp_path, later_than=str(tmp_path / "checkpoint-2"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-2", "checkpoint-8"]


def test_resuming_without_a_complete_checkpoint_is_refused(tmp_path):
    checkpoint(tmp_path, 2, "{")
    with pytest.raises(ValueError, match=r"expected a complete checkpoint in .* got none; leave out"):
        trainer_of(tmp_path, {}).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("limit", [None, 1, 2])
def test_rotation_keeps_a_complete_checkpoint_rather_than_a_half_written_later_one(tmp_path, monkeypatch, limit):
    """Where folders have no modification times, `Trainer` goes by the step."""
    monkeypatch.setattr(os.path, "getmtime", lambda path: 0.0)
    options = {"save_total_limit": limit}
    trainer_of(tmp_path, {**options, "max_steps": 4}).train()
    for step in (7, 9):
        checkpoint(tmp_path, step, None)
    trainer_of(tmp_path, {**options, "max_steps": 6}).train(resume_from_checkpoint=True)
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-6")
    assert (tmp_path / "checkpoint-9").is_dir() == (limit is None)


@pytest.mark.parametrize("resume", [None, False, "a path"])
def test_what_else_says_where_to_resume_is_passed_on(tmp_path, monkeypatch, resume):
    passed = []
    monkeypatch.setattr(Trainer, "train", lambda trainer, *args, **kwargs: passed.append((args, kwargs)))
    trainer_of(tmp_path, {}).train(resume, ignore_keys_for_eval=["a"])
    assert passed == [((resume,), {"ignore_keys_for_eval": ["a"]})]

"""Which checkpoints can be resumed from, and what becomes of the others."""

import logging
import os
from pathlib import Path

import pytest
import torch
from killed_run import Killer, trainer_of
from tiny import SENTENCES, tiny_gpt2, tiny_tokenizer
from transformers import Trainer

from ewc_hf import EWCConfig, EWCTrainer, SynapticIntelligence
from ewc_hf.resuming import last_complete_checkpoint, remove_half_written


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


def test_a_checkpoint_without_the_sums_of_its_run_is_passed_over(tmp_path):
    options = {"ewc_synaptic": True, "max_steps": 4}
    trainer_of(tmp_path, options).train()
    (tmp_path / "checkpoint-4" / SynapticIntelligence.state_name).unlink()
    began = Killer(None)
    trainer_of(tmp_path, options, began).train(resume_from_checkpoint=True)
    assert began.began == 2


def test_a_checkpoint_of_the_model_only_holds_no_sums(tmp_path):
    trainer_of(tmp_path, {"ewc_synaptic": True, "max_steps": 2, "save_only_model": True}).train()
    assert (tmp_path / "checkpoint-2/model.safetensors").is_file()
    assert not list(tmp_path.rglob("ewc_synaptic*"))


def test_a_checkpoint_that_is_written_over_is_not_complete_before_it_is_saved(tmp_path, monkeypatch):
    trainer_of(tmp_path, {"max_steps": 2}).train()
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")

    def fill_the_disk(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", fill_the_disk)
    with pytest.raises(OSError, match="no space left"):
        trainer_of(tmp_path, {"max_steps": 2}).train()
    assert last_complete_checkpoint(tmp_path) is None


@pytest.mark.parametrize("resume", [None, False, "a path"])
def test_what_else_says_where_to_resume_is_passed_on(tmp_path, monkeypatch, resume):
    passed = []
    monkeypatch.setattr(Trainer, "train", lambda trainer, *args, **kwargs: passed.append((args, kwargs)))
    trainer_of(tmp_path, {}).train(resume, ignore_keys_for_eval=["a"])
    assert passed == [((resume,), {"ignore_keys_for_eval": ["a"]})]


def test_a_run_with_a_budget_passes_over_a_half_written_checkpoint_too(tmp_path):
    checkpoint(tmp_path, 2, "{")
    args = EWCConfig(str(tmp_path), max_forgetting=0.1, use_cpu=True, report_to="none")
    texts = {"retention_texts": {"old": SENTENCES}, "processing_class": tiny_tokenizer()}
    with pytest.raises(ValueError, match=r"expected a complete checkpoint in .* got none; leave out"):
        EWCTrainer(tiny_gpt2(), args, **texts).train(resume_from_checkpoint=True)


def test_without_state_of_ours_resuming_is_the_trainers_own(tmp_path):
    trainer = EWCTrainer(tiny_gpt2(), EWCConfig(str(tmp_path), use_cpu=True, report_to="none"))
    with pytest.raises(ValueError) as error:
        trainer.train(resume_from_checkpoint=True)
    theirs = f"No valid checkpoint found in output directory ({tmp_path})"
    assert str(error.value) == theirs
    with pytest.raises(ValueError) as error:
        trainer_of(tmp_path, {}).train(resume_from_checkpoint=True)
    assert str(error.value).startswith(f"{theirs}: expected a complete checkpoint")

"""Runs that Synaptic Intelligence follows through an interruption."""

import copy
import shutil

import pytest
import torch
from small_runs import Stream, exact_loss, small_model
from synaptic_runs import arguments, trained
from transformers import Trainer

from ewc_hf import EWCConfig, EWCTrainer, SynapticIntelligence

pytestmark = pytest.mark.usefixtures("small_chunks")


@pytest.fixture
def model():
    return small_model()


def test_a_resumed_run_goes_on_with_its_sums(tmp_path, model):
    whole = SynapticIntelligence()
    args = arguments(tmp_path, save_strategy="steps", save_steps=2)
    fresh = copy.deepcopy(model)
    trained(model, args, [whole])
    resumed = SynapticIntelligence()
    Trainer(fresh, args, train_dataset=Stream(), callbacks=[resumed], compute_loss_func=exact_loss).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-2")
    )
    got, expected = resumed.consolidation(), whole.consolidation()
    assert got.metadata == expected.metadata
    assert all(torch.equal(got.importance[name], omega) for name, omega in expected.importance.items())


def test_a_run_that_goes_on_in_another_folder_reads_the_sums_of_its_checkpoint(tmp_path, model):
    saving = {"save_strategy": "steps", "save_steps": 2, "ewc_synaptic": True}
    whole = trained(copy.deepcopy(model), arguments(tmp_path / "first", EWCConfig, **saving), [], EWCTrainer)
    args = arguments(tmp_path / "second", EWCConfig, **saving)
    resumed = EWCTrainer(model, args, train_dataset=Stream(), compute_loss_func=exact_loss)
    resumed.train(resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-2"))
    got, expected = resumed.synaptic_consolidation().importance, whole.synaptic_consolidation().importance
    assert all(torch.equal(got[name], omega) for name, omega in expected.items())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "ewc_synaptic.safetensors.index.json").unlink(), "expected the sums of Synaptic"),
        (lambda folder: (folder / "ewc_synaptic.safetensors").write_bytes(b"x"), "expected SHA-256"),
    ],
    ids=["missing", "changed"],
)
def test_a_checkpoint_without_its_sums_is_refused(tmp_path, model, damage, message):
    args = arguments(tmp_path, save_strategy="steps", save_steps=2)
    trainer = trained(model, args, [SynapticIntelligence()])
    damage(tmp_path / "checkpoint-2")
    with pytest.raises(ValueError, match=message):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_the_sums_of_other_parameters_are_refused(tmp_path, model):
    saving = {"save_strategy": "steps", "save_steps": 2}
    trainer = trained(model, arguments(tmp_path / "all", **saving), [SynapticIntelligence()])
    frozen = copy.deepcopy(model)
    frozen.transformer.wpe.requires_grad_(False)
    trained(frozen, arguments(tmp_path / "fewer", **saving), [SynapticIntelligence()])
    for path in (tmp_path / "fewer" / "checkpoint-2").glob("ewc_synaptic*"):
        shutil.copy(path, tmp_path / "all" / "checkpoint-2")
    with pytest.raises(ValueError, match=r"expected the sums of 'transformer.wpe.weight' of the same shape"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "all" / "checkpoint-2"))

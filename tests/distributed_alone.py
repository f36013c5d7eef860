"""What one of two processes does alone: it fails where all go on together, or logs."""

import faulthandler
import os
import shutil
from contextlib import contextmanager

import torch
import torch.distributed as dist
from conftest import gpt2
from distributed_cases import Case, ragged
from transformers import TrainerCallback

from ewc_hf import Consolidation, estimate_importance
from ewc_hf.engines import all_agree, local_part, process_index
from ewc_hf.storage import shards, tensor_file

TRAINED = Case("ddp", "decoupled", 1, "adamw")
SECONDS = 200
"""A process that waits longer for the other is ended, and the launched run fails."""


def fail(*args, **kwargs):
    raise OSError("the disk does not answer")


@contextmanager
def broken(place, name, number, replacement=fail):
    """Replace a function in one process."""
    intact = getattr(place, name)
    if process_index() == number:
        setattr(place, name, replacement)
    try:
        yield
    finally:
        setattr(place, name, intact)


def own(number, here, elsewhere):
    """Something else for one process than for the others."""
    return here if process_index() == number else elsewhere


class Failures:
    """Each method is one of the ways in which one process fails; `make_trainer` and the session's files are given."""

    def __init__(self, folder, make_trainer, shard):
        self.folder, self.make_trainer, self.shard = folder, make_trainer, shard

    def trainer(self, name="failing", consolidation=None, **options):
        options = {"output_dir": str(self.folder / name), **options}
        return self.make_trainer(TRAINED, self.folder, consolidation, **options)

    def one_finds_no_folder(self):
        self.trainer(consolidation=own(1, self.folder / "nowhere", self.folder / "llama-torch.float64"))

    def one_finds_another_consolidation(self):
        self.trainer(consolidation=self.folder / own(1, "llama-torch.float32", "llama-torch.float64"))

    def one_cannot_read_a_shard(self):
        with broken(shards, "sha256", 0):
            self.trainer()

    def one_cannot_read_the_index(self):
        with broken(shards, "read_json", 0):
            self.trainer()

    def one_cannot_read_its_part(self):
        trainer = self.trainer()
        with broken(tensor_file.StoredTensor, "__getitem__", 1):
            trainer.train()

    def one_has_a_consolidation_that_moved(self):
        consolidation = Consolidation.from_pretrained(self.folder / "llama-torch.float64")
        consolidation.anchor_is_borrowed = True
        if process_index() == 1:
            consolidation.anchor["lm_head.weight"] += 1
        self.trainer(consolidation=consolidation)

    def one_cannot_save_its_random_state(self):
        trainer = self.trainer("half", save_strategy="steps", save_steps=3)
        with broken(torch, "save", 1):
            trainer.train()

    def one_finds_no_checkpoint(self):
        self.trainer(own(1, "nowhere", "resumed/ddp")).train(resume_from_checkpoint=True)

    def one_finds_another_checkpoint(self):
        shutil.copytree(self.folder / "resumed/ddp/checkpoint-3", self.folder / f"last-{process_index()}/checkpoint-3")
        if process_index() == 1:
            (self.folder / "last-1/checkpoint-3").rename(self.folder / "last-1/checkpoint-2")
        self.trainer(f"last-{process_index()}").train(resume_from_checkpoint=True)

    def one_finds_no_sums(self):
        copy = self.folder / f"sums-{process_index()}"
        shutil.copytree(self.folder / "resumed/ddp/checkpoint-3", copy)
        if process_index() == 1:
            (copy / "ewc_synaptic.safetensors.index.json").unlink()
        self.trainer(ewc_synaptic=True).train(resume_from_checkpoint=str(copy))

    def sharded(self):
        return estimate_importance(self.shard(gpt2()), ragged(), batch_size=3, progress=False)

    def one_cannot_make_the_folder(self):
        if process_index() == 0:
            (self.folder / "a file").touch()
        self.sharded().save_pretrained(self.folder / "a file" / "in it")

    def one_has_a_full_disk(self):
        consolidation, calls = self.sharded(), []

        def fill(block):
            calls.append(block)
            return fail() if len(calls) == 5 else memoryview(b"")

        with broken(tensor_file, "bytes_of", 0, fill):
            consolidation.save_pretrained(self.folder / "full", max_shard_size=3000)

    def one_cannot_rename(self):
        with broken(os, "replace", 0):
            self.sharded().save_pretrained(self.folder / "renamed")

    def one_cannot_read_the_checkpoint(self):
        consolidation = self.sharded()
        if process_index() == 0:
            gpt2().save_pretrained(self.folder / "unread")
        with broken(tensor_file.StoredTensor, "__getitem__", 1):
            consolidation.save_pretrained(self.folder / "unread")


FAILURES = {
    "one_finds_no_folder": "a folder or a Hub id that can be reached, got '.*nowhere'",
    "one_finds_another_consolidation": "expected the same content of ewc_config.json in every process, got others",
    "one_cannot_read_a_shard": 0,
    "one_cannot_read_the_index": 0,
    "one_cannot_read_its_part": 1,
    "one_has_a_consolidation_that_moved": "got weights that have moved since",
    "one_cannot_save_its_random_state": 1,
    "one_finds_no_checkpoint": "No valid checkpoint found in output directory",
    "one_finds_another_checkpoint": "expected the same last complete checkpoint in every process, got others",
    "one_finds_no_sums": "expected the sums of Synaptic Intelligence in '.*sums-1', got none",
    "one_cannot_make_the_folder": 0,
    "one_has_a_full_disk": 0,
    "one_cannot_rename": 0,
    "one_cannot_read_the_checkpoint": 1,
}
"""What all processes say by a `ValueError`, or the number of the one whose other error they tell of."""


def failures(folder, make_trainer, shard):
    """Return what each process raised, as the name of the class and the words."""
    world, said = Failures(folder, make_trainer, shard), {}
    for name in FAILURES:
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        raised = None
        try:
            getattr(world, name)()
        except Exception as error:
            raised = type(error).__name__, str(error)
        said[name] = [None] * dist.get_world_size()
        dist.all_gather_object(said[name], raised)
    faulthandler.cancel_dump_traceback_later()
    return said


class Talker(TrainerCallback):
    """Logs a loss of its own in the first process only."""

    def on_step_begin(self, args, state, control, **kwargs):
        if process_index() == 0:
            self.trainer.log({"loss": -1.0})


def logged(folder, make_trainer, engine):
    """Return all that is logged while one process logs more than the other."""
    trainer, talker = make_trainer(Case(engine, "decoupled", 1, "adamw"), folder), Talker()
    talker.trainer = trainer
    trainer.add_callback(talker)
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    trainer.train()
    faulthandler.cancel_dump_traceback_later()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def trained_twice(folder, make_trainer, engine):
    """Return whether a second training ends alike with a stored consolidation and one that was let go of."""
    case, models = Case(engine, "decoupled", 1, "adamw"), []
    path = folder / f"{case.model}-{case.dtype}"
    for given in (path, Consolidation.from_pretrained(path)):
        trainer = make_trainer(case, folder, given, ewc_state_dtype="bfloat16")
        trainer.train()
        trainer.train()
        models.append([local_part(p).clone() for p in trainer.model.parameters()])
    return all_agree(all(map(torch.equal, *models)), collective=True)


def everything(folder, engines, make_trainer, shard, save):
    """Do all of this in the engines of a session."""
    if engines == "torch":
        save(folder, "failures", {}, failures(folder, make_trainer, shard))
        save(folder, "twice", {}, trained_twice(folder, make_trainer, "fsdp2"))
    engine = {"torch": "fsdp2", "zero": "zero2"}[engines]
    save(folder, f"logged-{engine}", {}, logged(folder, make_trainer, engine))

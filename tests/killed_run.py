"""A training run that can be told when to kill its own process; `test_killed_runs.py` starts it in another one."""

import gc
import os
import shutil
import signal
from enum import Enum
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny import VOCABULARY, tiny_gpt2
from transformers import TrainerCallback, TrainerState

from ewc_hf import Consolidation, EWCConfig, EWCTrainer

RESULT = "result.safetensors"


class Moment(Enum):
    """When the process is killed: at the end of which step, or while which file is written or removed after it."""

    BETWEEN_SAVES = (7, None)
    AFTER_THE_MODEL = (6, "training_args.bin")
    IN_THE_OPTIMIZER = (6, "optimizer.pt")
    IN_THE_STATE = (6, "trainer_state.json")
    IN_THE_ROTATION = (6, "model.safetensors")


class Killer(TrainerCallback):
    """Kills the process at its moment, if it has one."""

    def __init__(self, moment):
        self.step, self.file = (None, None) if moment is None else moment.value

    def on_train_begin(self, args, state, control, **kwargs):
        self.began = state.global_step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step != self.step:
            return
        if self.file is None:
            die()
        torch.save = self.half(torch.save)
        TrainerState.save_to_json = self.half(TrainerState.save_to_json)
        shutil.rmtree = self.remove_one_file

    def half(self, save):
        """`save`, but that it leaves half of this file and then no process."""

        def save_half(content, path):
            save(content, path)
            if Path(path).name == self.file:
                os.truncate(path, os.path.getsize(path) // 2)
                die()

        return save_half

    def remove_one_file(self, folder, ignore_errors):
        """Begin to remove a folder."""
        (Path(folder) / self.file).unlink()
        die()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def consolidation_of(model):
    draws = torch.Generator().manual_seed(1)
    importance, anchor = {}, {}
    for name, p in model.named_parameters():
        importance[name] = torch.rand(p.shape, generator=draws)
        anchor[name] = p.detach() + 0.1 * torch.randn(p.shape, generator=draws)
    return Consolidation.create(
        importance, anchor, method="fisher", unit="nats per token", num_examples=1, num_tokens=8
    )


def trainer_of(folder, options, callback=None, rehearsal=None):
    """AdamW, dropout on, two epochs or more of shuffled examples, a checkpoint every second step of eight."""
    model = tiny_gpt2()
    draws = torch.Generator().manual_seed(2)
    examples = [torch.randint(1, VOCABULARY, (9,), generator=draws) for _ in range(12)]
    options = {
        "ewc_lambda": 3.0, "max_steps": 8, "save_steps": 2, "save_total_limit": 2, "per_device_train_batch_size": 2,
        "learning_rate": 1e-2, "weight_decay": 0.01, "report_to": "none", "use_cpu": True, "disable_tqdm": True,
        "dataloader_pin_memory": False, **options,
    }  # fmt: skip
    return EWCTrainer(
        model,
        EWCConfig(str(folder), **options),
        consolidation=consolidation_of(model),
        rehearsal=rehearsal,
        train_dataset=[{"input_ids": ids, "labels": ids} for ids in examples],
        callbacks=None if callback is None else [callback],
    )


def train(folder, options, resume=None, moment=None):
    """Train; if the process lives, leave the weights and the step where it began."""
    gc.freeze()  # what was imported before the fork
    killer = Killer(moment)
    trainer = trainer_of(folder, options, killer)
    trainer.train(resume_from_checkpoint=resume)
    weights = {name: p.detach() for name, p in trainer.model.named_parameters()}
    if trainer.args.ewc_synaptic:
        importance = trainer.synaptic_consolidation().importance
        weights |= {f"importance of {name}": omega for name, omega in importance.items()}
    save_file(weights, folder / RESULT, metadata={"began": str(killer.began)})

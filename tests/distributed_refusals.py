"""What DeepSpeed can be told that the penalty cannot honour, and what is said of it.

Some of it needs a GPU, a disk of its own or a compiler: there a real optimizer of DeepSpeed is left as these leave it.
"""

from contextlib import contextmanager
from unittest.mock import patch

import torch
from distributed_cases import Case, engine_options

from ewc_hf.engines.zero import ZeroParameters

OFFLOADING = {"offload_optimizer": {"device": "cpu"}}


def message(act):
    try:
        act()
    except ValueError as error:
        return str(error)
    return "nothing"


def deepspeed(stage, **zero):
    options = engine_options(Case("zero3", "decoupled"))["deepspeed"]
    options["zero_optimization"] |= {"stage": stage, **zero}
    return options | {"zero_force_ds_cpu_optimizer": False}  # which would be compiled first


@contextmanager
def on_a_disk(zero):
    """As the swapper leaves the optimizer's flat tensors, before the first step and between any two."""
    with patch.object(zero, "fp32_partitioned_groups_flat", [torch.empty(0)] * 99):
        yield


SPOILED = {
    "part of it offloaded": lambda zero: patch.dict(zero.subgroup_to_device, {0: "cuda"}),
    "ZenFlow": lambda zero: patch.object(zero, "zenflow", True),
    "on a disk": on_a_disk,
    "nothing": lambda zero: patch.dict(zero.subgroup_to_device),
}


def refusals(make_trainer, folder):
    """What is said, by what the user asked for."""
    case = Case("zero3", "decoupled", 1, "adamw")
    found = {
        "coupling": message(lambda: make_trainer(Case("zero2", "loss"), folder)),
        "no ZeRO": message(make_trainer(case, folder, deepspeed=deepspeed(0)).train),
    }
    trainer = make_trainer(case, folder, deepspeed=deepspeed(3, **OFFLOADING), max_steps=1)
    trainer.train()
    zero = trainer.optimizer.optimizer
    for name, spoil in SPOILED.items():
        with spoil(zero):
            found[name] = message(lambda: ZeroParameters(trainer.model, zero))
    return found

"""What several processes do together; `test_distributed.py` launches it and does the same in one process."""

import json
import os
import signal
from dataclasses import asdict

import distributed_alone
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedType
from conftest import gpt2
from distributed_cases import (
    CASES,
    COUPLINGS,
    ESTIMATES,
    GLOBAL_BATCH,
    HELD_CASES,
    HYBRID_ESTIMATES,
    MODELS,
    RESUMED,
    STEPS,
    Case,
    Tokens,
    engine_options,
    exact_loss,
    ragged,
)
from distributed_refusals import refusals
from held_numbers import Held
from recorded_shapes import Shapes
from safetensors.torch import save_file
from tiny import SENTENCES, tiny_gpt2, tiny_tokenizer
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, TrainerCallback

from ewc_hf import EWCConfig, EWCTrainer, estimate_importance, evaluate_perplexity
from ewc_hf.engines import num_processes, process_index, sharding


def begin(engine):
    """Forget the engine of an earlier run."""
    PartialState._reset_state()
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    if engine.startswith("zero"):
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # gloo then, which needs not be compiled
    if engine != "one":
        PartialState(cpu=True)


def make_trainer(case, folder, consolidation=None, adapt=lambda model: model, given=None, **options):
    """The trainer of a case, which may be given more; in one process, with the same global batch."""
    begin(case.engine)
    checkpoint = folder / f"{case.model}-{case.dtype}"
    sharded = {}
    if case.engine == "load":
        from transformers.distributed import DistributedConfig

        sharded = {"distributed_config": DistributedConfig(fsdp_size=int(os.environ["WORLD_SIZE"]))}
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=case.dtype, **sharded)
    processes = 1 if case.engine == "one" else int(os.environ["WORLD_SIZE"])
    settings = {
        "output_dir": str(folder / "out" / case.name),
        "max_steps": STEPS,
        "max_grad_norm": 0.5,
        "optim": {"sgd": "sgd", "adamw": "adamw_torch"}[case.optimizer],
        "learning_rate": {"sgd": 0.1, "adamw": 0.01}[case.optimizer],
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "use_cpu": True,
        "bf16": case.bf16,
        "ewc_lambda": case.ewc_lambda,
        "ewc_coupling": case.coupling,
        "gradient_accumulation_steps": case.accumulation,
        "per_device_train_batch_size": GLOBAL_BATCH // processes // case.accumulation,
    }
    args = EWCConfig(**settings | engine_options(case) | options)
    if case.engine == "fsdp2":  # accelerate shards on GPUs only, so these CPUs have to pass for such
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    if consolidation is None and case.ewc_lambda > 0:
        consolidation = str(checkpoint)
    return EWCTrainer(
        model=adapt(model),
        args=args,
        consolidation=consolidation,
        train_dataset=Tokens(),
        compute_loss_func=exact_loss,
        **(given or {}),
    )


def weights(trainer):
    """The trained weights, whole, by name; every process has to call this."""
    if trainer.is_deepspeed_enabled:
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        return {name: state[name].float().clone() for name, _ in trainer.model.named_parameters()} if state else {}
    return {
        name: (p.full_tensor() if isinstance(p, DTensor) else p).detach().clone()
        for name, p in trainer.accelerator.unwrap_model(trainer.model).named_parameters()
    }


def train(case, folder, **options):
    """Train and return the weights and what was logged with the last loss."""
    trainer = make_trainer(case, folder, **options)
    trainer.train()
    if case.engine in ("fsdp2", "load"):
        assert all(isinstance(p, DTensor) for group in trainer.optimizer.param_groups for p in group["params"])
    last = [logs for logs in trainer.state.log_history if "loss" in logs][-1]
    return weights(trainer), {key: last[key] for key in last if key.startswith("ewc_")}


def save(folder, name, tensors, content=None):
    if process_index() == 0:
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(json.dumps(content))


def shard(model, mesh=None):
    """By hand, each layer and the rest."""
    layers = model.transformer.h if hasattr(model, "transformer") else model.model.layers
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def estimate(name, sharded=False, mesh=None):
    kind, options = ESTIMATES[name]
    model = shard(MODELS[kind](), mesh) if sharded else MODELS[kind]()
    torch.manual_seed(num_processes() + process_index())  # the same nowhere
    return estimate_importance(model, ragged(), batch_size=6 // num_processes(), progress=False, **options)


def whole_tensors(folder):
    """Which whole importances are ever made: they are of another dtype than weights and gradients, so they show."""
    sharding._BLOCK_ELEMENTS = 8
    case = Case("fsdp2", "loss")
    with Shapes() as trained:
        make_trainer(case, folder).train()
    model = shard(gpt2().bfloat16())
    with Shapes() as estimated:
        estimate_importance(model, ragged(), batch_size=3, progress=False).save_pretrained(folder / "estimated")
    shapes = {tuple(p.shape) for p in gpt2().parameters() if p.dim() > 1}
    shapes -= {(rows // 2, *others) for rows, *others in shapes}  # what a process holds
    return {
        "training": sorted(shape for dtype, shape in trained.seen if dtype == "torch.float64" and shape in shapes),
        "estimating": sorted(shape for dtype, shape in estimated.seen if dtype == "torch.float32" and shape in shapes),
    }


def synaptic(engine, folder):
    case = Case(engine, "decoupled", ewc_lambda=0.0)
    trainer = make_trainer(case, folder, ewc_synaptic=True)
    trainer.train()
    return trainer.synaptic_consolidation()


def resumed(case, folder):
    """Train to the third step, and then from there to the end with another trainer."""
    options = {"output_dir": str(folder / "resumed" / case.engine), "save_strategy": "steps", "save_steps": 3}
    synaptic = not case.engine.startswith("zero")
    first = make_trainer(case, folder, **options, ewc_synaptic=synaptic)
    first.add_callback(held := Held(first))
    first.train()
    second = make_trainer(case, folder, **options, ewc_synaptic=synaptic)
    second.train(resume_from_checkpoint=str(folder / "resumed" / case.engine / "checkpoint-3"))
    learned = second.synaptic_consolidation() if synaptic else None
    if learned is not None:
        learned.save_pretrained(folder / "resumed" / case.engine / "learned")
    return weights(second), held.numbers


class Killer(TrainerCallback):
    """Kills the first process while it saves the fourth step; the launcher then ends the other."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 4 and process_index() == 0:
            torch.save = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)


def killed(folder, resume):
    options = {"output_dir": str(folder / "killed"), "save_strategy": "steps", "save_steps": 2, "ewc_synaptic": True}
    trainer = make_trainer(Case("fsdp2", "decoupled", 1, "adamw"), folder, **options)
    if not resume:
        trainer.add_callback(Killer())
    trainer.train(resume_from_checkpoint=resume)
    return weights(trainer)


def perplexity():
    model = tiny_gpt2(dtype=torch.float64)
    return asdict(evaluate_perplexity(model, tiny_tokenizer(), SENTENCES, window=8, batch_size=3, progress=False))


def moved(folder):
    """Go on, in another number of processes, from where `resumed` saved its third step."""
    options = {"output_dir": str(folder / "moved"), "ewc_synaptic": True}
    trainer = make_trainer(Case("fsdp2", "decoupled", 1, "adamw"), folder, **options)
    trainer.train(resume_from_checkpoint=str(folder / "resumed" / "fsdp2" / "checkpoint-3"))
    trainer.synaptic_consolidation().save_pretrained(folder / "moved" / "learned")
    return weights(trainer)


def main(folder, engines):
    if engines == "move":
        save(folder, "moved", moved(folder))
        twice = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
        for name in HYBRID_ESTIMATES:
            estimate(name, sharded=True, mesh=twice).save_pretrained(folder / f"hybrid-{name}")
        return
    if engines in ("kill", "resume"):
        save(folder, "killed", killed(folder, engines == "resume"))
        return
    if engines == "zero":  # before ZeRO-3, of which DeepSpeed remembers to load each model as it did
        distributed_alone.everything(folder, engines, make_trainer, shard, save)
    chosen = [engine for engine in COUPLINGS if engine.startswith("zero") == (engines == "zero")]
    for engine in chosen:  # ZeRO-3 last
        if engine in RESUMED:
            save(folder, f"resumed-{engine}", *resumed(Case(engine, "decoupled", 1, "adamw"), folder))
        for case in [*CASES, *HELD_CASES]:
            if case.engine == engine:
                save(folder, case.name, *train(case, folder))
    if engines == "zero":
        return save(folder, "refused", {}, refusals(make_trainer, folder))
    distributed_alone.everything(folder, engines, make_trainer, shard, save)
    begin("ddp")
    for name in ESTIMATES:
        estimate(name).save_pretrained(folder / f"ddp-{name}")
        if name != "signal":
            estimate(name, sharded=True).save_pretrained(folder / f"fsdp2-{name}", max_shard_size=3000)
    save(folder, "perplexity", {}, perplexity())
    for engine in ("ddp", "fsdp2"):
        synaptic(engine, folder).save_pretrained(folder / f"synaptic-{engine}")
    save(folder, "whole_tensors", {}, whole_tensors(folder))

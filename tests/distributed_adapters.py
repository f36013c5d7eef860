"""What two processes do with adapters; `test_distributed_adapters.py` launches it and does the same in one process."""

import json

import torch
from distributed_cases import Case
from distributed_refusals import message
from distributed_run import make_trainer, train
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from ewc_hf.engines import process_index

CASES = [Case("ddp", "loss", accumulation, "adamw") for accumulation in (1, 2)]
SHARDED = {engine: Case(engine, "loss", 1, "adamw") for engine in ("fsdp2", "load")}


def adapt(model):
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"])).double()


def main(folder):
    for case in CASES:
        trained, _ = train(case, folder, adapt=adapt)
        if process_index() == 0:
            save_file(trained, folder / f"adapted-{case.name}.safetensors")
    said = {engine: message(make_trainer(case, folder, adapt=adapt).train) for engine, case in SHARDED.items()}
    if process_index() == 0:
        (folder / "said.json").write_text(json.dumps(said))

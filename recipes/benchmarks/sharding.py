"""Measure the most memory that one process holds while several train one model with FSDP2, and what was planned.

for n in 1 2 4; do torchrun --nproc_per_node $n recipes/benchmarks/sharding.py --output_dir out/sharding; done

Each launch adds a line to the table. `--ewc_lambda 0` trains without importance and anchor. In float32, on CPUs:
resident memory beyond what the process had before the model was loaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, default_data_collator
from transformers.distributed import DistributedConfig

from ewc_hf import EWCConfig, EWCTrainer, l2_to_start
from ewc_hf.cli import parse_arguments
from ewc_hf.config import StateDtype
from ewc_hf.engines import launched, num_processes, peak_memory_bytes, process_index, reset_peak_memory
from ewc_hf.plan import Engine, TrainingPrecision, model_sizes, plan
from ewc_hf.storage import markdown_table


@dataclass
class ShardingArguments:
    """How large a model is trained."""

    output_dir: str = field(metadata={"help": "For the model, its consolidation and the table."})
    hidden_size: int = field(default=768, metadata={"help": "Width."})
    num_layers: int = field(default=12, metadata={"help": "Blocks."})
    vocab_size: int = field(default=16384, metadata={"help": "Rows of the embedding and of the head."})
    length: int = field(default=16, metadata={"help": "Tokens of each process's example; few, for few activations."})
    ewc_lambda: float = field(default=30.0, metadata={"help": "0 trains without importance and anchor."})


class Tokens(Dataset):
    """Random ones."""

    def __init__(self, vocab_size: int, length: int) -> None:
        """Draw them."""
        self.ids = torch.randint(vocab_size, (64, length))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


def main() -> None:
    """Train two steps and add to the table."""
    (args,) = parse_arguments(ShardingArguments, description=__doc__)
    state, folder = launched(), Path(args.output_dir)
    config = LlamaConfig(
        hidden_size=args.hidden_size,
        intermediate_size=4 * args.hidden_size,
        num_hidden_layers=args.num_layers,
        num_attention_heads=args.hidden_size // 64,
        num_key_value_heads=args.hidden_size // 64,
        vocab_size=args.vocab_size,
    )

    # 1. A model with a consolidation on disk, made by a launch of its own.
    if not (folder / "ewc_config.json").is_file():
        if num_processes() > 1:
            raise ValueError(f"expected a model in '{folder}', got none; launch one process first, which makes it")
        model = LlamaForCausalLM(config)
        model.save_pretrained(folder)
        l2_to_start(model).save_pretrained(folder)
        del model

    # 2. Each process reads its part of the model, of the importance and of the anchor, and trains.
    reset_peak_memory()
    before = peak_memory_bytes()
    sharding = DistributedConfig(fsdp_size=num_processes()) if num_processes() > 1 else None
    trainer = EWCTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, distributed_config=sharding),
        args=EWCConfig(
            str(folder / "run"),
            max_steps=2,
            per_device_train_batch_size=1,
            save_strategy="no",
            report_to="none",
            use_cpu=state.device.type == "cpu",
            ewc_lambda=args.ewc_lambda,
        ),
        consolidation=str(folder),
        train_dataset=Tokens(args.vocab_size, args.length),
        data_collator=default_data_collator,
    )
    trainer.train()

    # 3. The largest peak of all processes, beside what was planned.
    peaks = [peak_memory_bytes() - before] * num_processes()
    if num_processes() > 1:
        dist.all_gather_object(peaks, peaks[0])
    if process_index() > 0:
        return
    engine = Engine.FSDP2 if num_processes() > 1 else Engine.ONE_GPU
    planned = plan(model_sizes(config), engine, num_processes(), TrainingPrecision.FLOAT32, StateDtype.FLOAT32, False)
    held = planned.total - (0 if args.ewc_lambda > 0 else planned.importance + planned.anchor)
    path = folder / "measured.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    rows.append([str(num_processes()), f"{args.ewc_lambda:g}", f"{max(peaks) / 2**20:.0f}", f"{held / 2**20:.0f}"])
    path.write_text(json.dumps(rows))
    print(markdown_table([["processes", "lambda", "measured peak (MiB)", "planned (MiB)"], *rows]))


if __name__ == "__main__":
    main()

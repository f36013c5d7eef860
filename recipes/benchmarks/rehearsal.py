"""Time a training step with rehearsal rows against a plain one, and against what the rows alone cost.

export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=10000000000  # on a CPU
accelerate launch recipes/benchmarks/rehearsal.py --output_dir out/benchmarks

A training step is forward, backward, clipping and AdamW on 8 sequences of 128 tokens of a GPT-2 with random weights.
With these two variables glibc keeps the memory of freed tensors, as torch does on GPUs; else it hands that of large
ones back to the system and gets it anew, page by page, which can take longer than the arithmetic.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from side_by_side import extra_peak_bytes, interleaved, machine, random_gpt2, ratio, shown, write_results
from transformers import GPT2LMHeadModel

from ewc_hf import EWCConfig, EWCTrainer
from ewc_hf.cli import parse_arguments
from ewc_hf.rehearsal import answer_rehearsal

PLAIN = "plain"
_ALLOCATOR = ", freed memory kept by the process" if os.environ.get("MALLOC_MMAP_MAX_") == "0" else ""


@dataclass
class BenchmarkArguments:
    """The model, its batch and the rows."""

    n_embd: int = field(default=384, metadata={"help": "Width."})
    n_layer: int = field(default=6, metadata={"help": "Layers."})
    vocab_size: int = field(default=8192, metadata={"help": "Vocabulary."})
    length: int = field(default=128, metadata={"help": "Tokens an example and a row."})
    batch_size: int = field(default=8, metadata={"help": "Examples a batch."})
    rows: int = field(default=2, metadata={"help": "Rehearsal rows that ride in a batch."})
    top_k: int = field(default=32, metadata={"help": "Answers at each position."})
    repeats: int = field(default=15, metadata={"help": "Rounds that are counted."})
    output_dir: str = field(default="out/benchmarks", metadata={"help": "Where rehearsal.json and .md go."})


def main() -> None:
    """Measure and write the table."""
    (args,) = parse_arguments(BenchmarkArguments, description=__doc__)

    model = partial(random_gpt2, args.n_embd, args.n_layer, args.vocab_size, args.length)

    # 1. Everybody in turn.
    with TemporaryDirectory() as folder:
        contenders = _contenders(args, model, Path(folder))
        seconds = interleaved(contenders, args.repeats, warmup=2)

        # 2. What a step takes beside weights, moments and rows: activations and gradients.
        memory = {name: extra_peak_bytes(run) for name, run in contenders.items()}

    # 3. The table.
    weights = sum(p.numel() * p.element_size() for p in model().parameters())
    rows, held = [], 3 * weights  # AdamW has two moments a weight
    for name in contenders:
        rows.append(
            {
                "": name,
                "ms": f"{1e3 * sorted(seconds[name])[len(seconds[name]) // 2]:.1f}",
                "times plain": shown(ratio(seconds[name], seconds[PLAIN])),
                "memory (MiB)": f"{memory[name] / 2**20:.0f}",
                "times plain's": f"{memory[name] / memory[PLAIN]:.2f}",
                "with weights and moments": f"{(held + memory[name]) / (held + memory[PLAIN]):.2f}",
            }
        )
    notes = (
        f"{machine()['device']}: GPT-2 of width {args.n_embd}, {args.n_layer} layers, vocabulary {args.vocab_size}, "
        f"float32, {args.batch_size} x {args.length} tokens a step, {args.rows} rehearsal rows beside them with "
        f"{args.top_k} answers a position{_ALLOCATOR}. Ratios within a round, median (min to max) of {args.repeats} "
        "rounds. Memory: the peak of a step beside weights and moments, and as a multiple of plain's without and with "
        "them."
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record = {"arguments": asdict(args), "seconds": seconds, "temporary_bytes": memory}
    write_results(Path(args.output_dir) / f"rehearsal_{device}", "Rehearsal", notes, rows, record)


def _contenders(
    args: BenchmarkArguments, model: Callable[[], GPT2LMHeadModel], folder: Path
) -> dict[str, Callable[[], Any]]:
    """Return what is timed: a step of trainers that have made their first one."""
    draws = torch.Generator().manual_seed(0)

    def rows(number: int) -> list[dict[str, torch.Tensor]]:
        ids = torch.randint(args.vocab_size, (number, args.length), generator=draws)
        return [{"input_ids": row, "labels": row} for row in ids]

    rehearsal = answer_rehearsal(model(), rows(16), top_k=args.top_k, progress=False)
    task, more = args.batch_size, args.batch_size + args.rows
    cases = {
        PLAIN: (task, None),
        f"plain, {more} rows instead of {task}": (more, None),
        f"{args.rows} rehearsal rows beside {task}": (task, rehearsal),
    }
    contenders = {}
    for name, (batch_size, given) in cases.items():
        training = EWCConfig(
            str(folder),
            max_steps=1,
            per_device_train_batch_size=batch_size,
            rehearsal_rows=args.rows,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = EWCTrainer(model(), training, train_dataset=rows(batch_size), rehearsal=given)
        trainer.train()
        batch = {key: torch.stack([row[key] for row in rows(batch_size)]) for key in ("input_ids", "labels")}
        contenders[name] = partial(_step, trainer, batch, torch.tensor(batch["labels"].numel()))
    return contenders


def _step(trainer: EWCTrainer, batch: dict[str, torch.Tensor], num_items: torch.Tensor) -> None:
    trainer.training_step(trainer.model_wrapped, dict(batch), num_items)
    trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


if __name__ == "__main__":
    main()

"""Time a step of many small networks in a stack against a step of one.

export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=10000000000  # on a CPU
accelerate launch recipes/benchmarks/stacked.py --output_dir out/benchmarks

A step is a batch of 100 pictures a network, forward, backward, the stabilized penalty with Fisher information, and
Adam, of the paper's fully connected network. Beside stacks of one and of ten: the same network in an `EWCTrainer`.
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
from side_by_side import interleaved, machine, ratio, shown, write_results
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import SequenceClassifierOutput

from ewc_hf import EWCConfig, EWCTrainer, estimate_importance
from ewc_hf.cli import parse_arguments
from ewc_hf.continual import Images, Lessons, Perceptron, Protection, Stack, learn_in_turn, parse_rows, permuted_tasks

ONE = "a stack of 1"
_ALLOCATOR = ", freed memory kept by the process" if os.environ.get("MALLOC_MMAP_MAX_") == "0" else ""


@dataclass
class BenchmarkArguments:
    """The stack and its batches."""

    stack_size: int = field(default=10, metadata={"help": "Networks at once."})
    steps: int = field(default=60, metadata={"help": "Steps a round."})
    repeats: int = field(default=9, metadata={"help": "Rounds that are counted."})
    output_dir: str = field(default="out/benchmarks", metadata={"help": "Where stacked.json and .md go."})


class Classifier(nn.Module):
    """A network as a `Trainer` takes it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, labels: Tensor) -> SequenceClassifierOutput:
        """Return loss and logits."""
        logits = self.network(images)
        return SequenceClassifierOutput(loss=cross_entropy(logits, labels), logits=logits)


def main() -> None:
    """Measure and write the table."""
    (args,) = parse_arguments(BenchmarkArguments, description=__doc__)
    with TemporaryDirectory() as folder:
        contenders = {
            ONE: _stacked(1, args.steps),
            f"a stack of {args.stack_size}": _stacked(args.stack_size, args.steps),
            "one network in an EWCTrainer": _trained(args.steps, Path(folder)),
        }
        seconds = interleaved(contenders, args.repeats)
    rows = [
        {
            "": name,
            "ms a step": f"{1e3 * sorted(of)[len(of) // 2] / args.steps:.2f}",
            "times a stack of 1": shown(ratio(of, seconds[ONE])),
            "times a trainer's": shown(ratio(of, seconds["one network in an EWCTrainer"])),
        }
        for name, of in seconds.items()
    ]
    notes = (
        f"{machine()['device']}{_ALLOCATOR}: a perceptron 784-300-150-10 in float32, 100 pictures a network and step, "
        f"the stabilized penalty, Adam. Ratios within a round, median (min to max) of {args.repeats} rounds of "
        f"{args.steps} steps."
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record = {"arguments": asdict(args), "seconds": seconds}
    write_results(Path(args.output_dir) / f"stacked_{device}", "Stacked networks", notes, rows, record)


def _pictures(number: int) -> Images:
    draws = torch.Generator().manual_seed(0)
    return Images(torch.rand(number, 28, 28, generator=draws), torch.randint(10, (number,), generator=draws))


def _stacked(size: int, steps: int) -> Callable[[], Any]:
    """Return what a task takes, after a first one that importance was estimated on."""
    (row,) = parse_rows(["fisher:stabilized:85"])
    stack, protection = Stack([Perceptron((784, 300, 150, 10)) for _ in range(size)]), Protection(row, [85.0] * size)
    pictures = _pictures(100 * steps)
    lessons = Lessons(epochs=1)
    learn_in_turn(stack, permuted_tasks(pictures, pictures.first(100), 2), protection, lessons, range(size))
    return partial(
        learn_in_turn, stack, permuted_tasks(pictures, pictures.first(1), 1), protection, lessons, range(size)
    )


def _trained(steps: int, folder: Path) -> Callable[[], Any]:
    """Return the same number of steps of a trainer."""
    network, pictures = Perceptron((784, 300, 150, 10)), _pictures(100 * steps)
    examples = [
        {"images": image, "label": label} for image, label in zip(pictures.pixels, pictures.labels, strict=True)
    ]
    consolidation = estimate_importance(network, examples[:500], num_examples=500, batch_size=250, progress=False)
    consolidation.own_anchor()
    names = {name: f"network.{name}" for name in consolidation.importance}
    for tensors in (consolidation.importance, consolidation.anchor):
        for name, renamed in names.items():
            tensors[renamed] = tensors.pop(name)

    def collate(chosen: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {
            "images": torch.stack([example["images"] for example in chosen]),
            "labels": torch.stack([example["label"] for example in chosen]),
        }

    args = EWCConfig(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=100,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        ewc_lambda=85.0,
        ewc_coupling="loss",
        max_grad_norm=0.0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=steps + 1,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    model = Classifier(network)

    def train() -> None:
        trainer = EWCTrainer(model, args, consolidation=consolidation, train_dataset=examples, data_collator=collate)
        trainer.train()

    return train


if __name__ == "__main__":
    main()

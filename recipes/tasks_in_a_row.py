"""Learn several tasks one after another, and tell what is left of each: plain, EWC, self-rehearsal, both.

accelerate launch recipes/tasks_in_a_row.py --model gpt2 --retention books/train.parquet \
    --retention_test books/test.parquet --tasks support.jsonl jokes.jsonl --tasks_test support_test.jsonl \
    jokes_test.jsonl --max_steps 200 --learning_rate 5e-4 --output_dir out/tasks

After each task its importance is added to the older ones, and rehearsal rows of the model as it then is are joined
with the earlier rows at a bounded total. Finished runs are kept in the output folder, so the same command goes on
where it was interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset
from transformers import AutoTokenizer

from ewc_hf.cli import parse_arguments
from ewc_hf.config import EWCConfig
from ewc_hf.data import document_texts, load_texts, pack
from ewc_hf.storage import hub_arguments
from ewc_hf.study import Measurement, SequenceTask, parse_settings, run_sequence, write_sequence


@dataclass
class TasksArguments:
    """What is learned, in this order, and how it is protected."""

    model: str = field(metadata={"help": "Pretrained checkpoint: a folder or a Hub id."})
    retention: str = field(metadata={"help": "Text like the pretraining text: a file, folder or Hub dataset."})
    retention_test: str = field(metadata={"help": "Held-out text like it."})
    tasks: list[str] = field(metadata={"help": "Text or dialogs of each task; or one file, with tasks_by."})
    tasks_test: list[str] = field(metadata={"help": "Held-out text of each, in the same order."})
    tasks_by: str | None = field(
        default=None, metadata={"help": "Column that tells the tasks of one file apart, in the order of tasks_order."}
    )
    tasks_order: list[str] = field(default_factory=list, metadata={"help": "Values of that column; default sorted."})
    retention_name: str = field(default="retention", metadata={"help": "What the report calls the pretraining text."})
    settings: list[str] = field(
        default_factory=lambda: [
            "plain", "fisher:decoupled:30", "rehearsal:1", "fisher:decoupled:3:rehearsal_weight=1"
        ],
        metadata={"help": "As the forgetting study's: plain, penalties, rehearsal, or both."},
    )  # fmt: skip
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Each setting runs once with each."})
    decay: float = field(default=1.0, metadata={"help": "How much of the older importance is kept after each task."})
    block_size: int = field(default=128, metadata={"help": "Tokens an example."})
    max_retention_documents: int = field(default=200, metadata={"help": "Documents that the importance is from."})
    max_test_documents: int = field(default=40, metadata={"help": "Held-out documents of each text."})


def main() -> None:
    """Learn the tasks in every setting, and write the report."""
    args, training, measurement = parse_arguments(TasksArguments, EWCConfig, Measurement, description=__doc__)

    # 1. The old text and the tasks: packed blocks to learn from, whole documents to measure on.
    retention = load_texts(args.retention, max_documents=args.max_retention_documents)
    texts = {args.retention_name: (retention, load_texts(args.retention_test, split="test")), **read_tasks(args)}

    # 2. The tasks one after another, in each setting.
    tokenizer = AutoTokenizer.from_pretrained(**hub_arguments(args.model))
    tasks = [
        SequenceTask(
            name,
            pack(train, tokenizer, args.block_size),
            document_texts(sample(test, args.max_test_documents), tokenizer=tokenizer),
        )
        for name, (train, test) in texts.items()
    ]
    settings = parse_settings(args.settings)
    runs = run_sequence(args.model, tasks, settings, args.seeds, training, measurement, args.decay)

    # 3. What is left of each.
    print(write_sequence(runs, list(texts), Path(training.output_dir), "Tasks in a row"))


def read_tasks(args: TasksArguments) -> dict[str, tuple[Dataset, Dataset]]:
    """Return text to learn and held-out text of each task, by its name: a file's, or a value of a column."""
    if len(args.tasks) != len(args.tasks_test) or (args.tasks_by is not None and len(args.tasks) != 1):
        files = f"{len(args.tasks)} and {len(args.tasks_test)}"
        raise ValueError(f"expected as many tasks_test as tasks, and one of each with tasks_by, got {files}")
    train, test = (
        [load_texts(path, split=split) for path in paths]
        for paths, split in ((args.tasks, "train"), (args.tasks_test, "test"))
    )
    if args.tasks_by is None:
        return dict(zip((Path(path).stem for path in args.tasks), zip(train, test, strict=True), strict=True))
    values = args.tasks_order or sorted(set(train[0][args.tasks_by]))
    return {
        value: (rows_of(train[0], args.tasks_by, value), rows_of(test[0], args.tasks_by, value)) for value in values
    }


def rows_of(dataset: Dataset, column: str, value: str) -> Dataset:
    """Return the rows that have a value in a column."""
    rows = [number for number, found in enumerate(dataset[column]) if found == value]
    if not rows:
        raise ValueError(f"expected rows with '{value}' in the column '{column}', got none; check tasks_order")
    return dataset.select(rows)


def sample(dataset: Dataset, most: int) -> Dataset:
    """Return at most so many rows, drawn alike in each run."""
    return dataset.shuffle(seed=0).select(range(min(most, len(dataset))))


if __name__ == "__main__":
    main()

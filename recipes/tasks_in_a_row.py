r"""Learn several tasks one after another, and tell what is left of each: plain, EWC, self-rehearsal, both.

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
from typing import Any

from datasets import Dataset

from ewc_hf.cli import CodeArguments, parse_arguments
from ewc_hf.config import EWCConfig
from ewc_hf.data import document_texts, load_texts, pack
from ewc_hf.study import (
    Measurement,
    SequenceTask,
    parse_settings,
    run_sequence,
    warn_of_whole_documents,
    write_sequence,
)


@dataclass
class TasksArguments:
    """What is learned, in this order, and how it is protected."""

    model: str = field(metadata={"help": "Pretrained checkpoint: a folder or a Hub id."})
    retention: str = field(metadata={"help": "Text like the pretraining text: a file, folder or Hub dataset."})
    retention_test: str = field(metadata={"help": "Held-out text like it."})
    tasks: list[str] = field(metadata={"help": "Text or dialogs of each task; or one file, with tasks_by."})
    tasks_test: list[str] = field(metadata={"help": "Held-out text of each, in the same order."})
    tasks_names: list[str] = field(
        default_factory=list, metadata={"help": "What the report calls them; default the names of the files."}
    )
    tasks_by: str | None = field(
        default=None, metadata={"help": "Column that tells the tasks of one file apart, in the order of tasks_order."}
    )
    tasks_order: list[str] = field(default_factory=list, metadata={"help": "Values of that column; default sorted."})
    retention_column: str | None = field(default=None, metadata={"help": "Text column of the pretraining text."})
    task_column: str | None = field(default=None, metadata={"help": "Column of the tasks' texts or dialogs."})
    learn_from: str | None = field(default=None, metadata={"help": "Speaker or role whose words are learned."})
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
    args, code, training, measurement = parse_arguments(
        TasksArguments, CodeArguments, EWCConfig, Measurement, description=__doc__
    )

    settings = parse_settings(args.settings)

    # 1. The old text and the tasks: packed blocks to learn from, whole documents to measure on.
    retention = load_texts(args.retention, max_documents=args.max_retention_documents)
    texts = [(args.retention_name, retention, load_texts(args.retention_test, split="test")), *read_tasks(args)]

    # 2. The tasks one after another, in each setting.
    tokenizer = code.tokenizer(args.model)
    tasks = []
    for number, (name, train, test) in enumerate(texts):
        column, learn_from = (args.task_column, args.learn_from) if number > 0 else (args.retention_column, None)
        blocks = pack(train, tokenizer, args.block_size, column=column, learn_from=learn_from)
        warn_of_whole_documents(blocks, name)
        held_out = document_texts(sample(test, args.max_test_documents), column, tokenizer)
        tasks.append(SequenceTask(name, blocks, held_out))
    runs = run_sequence(
        args.model, tasks, settings, args.seeds, training, measurement, args.decay, code.trust_remote_code
    )

    # 3. What is left of each.
    print(write_sequence(runs, [task.name for task in tasks], Path(training.output_dir), "Tasks in a row"))


def read_tasks(args: TasksArguments) -> list[tuple[str, Dataset, Dataset]]:
    """Return name, text to learn and held-out text of each task: of a file, or of a value of a column."""
    column, files = args.tasks_by, f"{len(args.tasks)} and {len(args.tasks_test)}"
    if len(args.tasks) != len(args.tasks_test) or (column is not None and len(args.tasks) != 1):
        raise ValueError(f"expected as many tasks_test as tasks, and one of each with tasks_by, got {files}")
    if args.tasks_names and (column is not None or len(args.tasks_names) != len(args.tasks)):
        got = f"{args.tasks_names} for {files}" + ("" if column is None else f" and the column '{column}'")
        raise ValueError(f"expected a name for each of tasks in tasks_names, none with tasks_by, got {got}")
    if column is None and args.tasks_order:
        raise ValueError(f"expected tasks_by beside tasks_order {args.tasks_order}, got None; name the column")
    train, test = (
        [load_texts(path, split=split) for path in paths]
        for paths, split in ((args.tasks, "train"), (args.tasks_test, "test"))
    )
    if column is None:
        return list(zip(args.tasks_names or [Path(path).stem for path in args.tasks], train, test, strict=True))
    values = args.tasks_order or sorted(set(map(str, cells(train[0], column))))
    return [(value, rows_of(train[0], column, value), rows_of(test[0], column, value)) for value in values]


def cells(dataset: Dataset, column: str) -> list[Any]:
    """Return a column."""
    if column not in dataset.column_names:
        raise ValueError(f"expected the column '{column}' of tasks_by, got only {dataset.column_names}")
    return dataset[column][:]


def rows_of(dataset: Dataset, column: str, value: str) -> Dataset:
    """Return the rows that have a value in a column."""
    rows = [number for number, found in enumerate(cells(dataset, column)) if str(found) == value]
    if not rows:
        raise ValueError(f"expected rows with '{value}' in the column '{column}', got none; check tasks_order")
    return dataset.select(rows)


def sample(dataset: Dataset, most: int) -> Dataset:
    """Return at most so many rows, drawn alike in each run."""
    return dataset.shuffle(seed=0).select(range(min(most, len(dataset))))


if __name__ == "__main__":
    main()

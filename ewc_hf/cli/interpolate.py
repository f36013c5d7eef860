"""`ewc-hf interpolate`: the models between an old and a tuned one, and the one that a budget allows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from ..data import document_texts, load_texts
from ..storage import markdown_table
from ..study import TextNames, interpolate, tokenizer_folder
from .arguments import command_line, parse_arguments
from .loading import CodeArguments
from .windows import WindowArguments


@dataclass
class InterpolateArguments:
    """Which models are joined, and what they are measured on."""

    base: str = field(metadata={"help": "The old model: a folder or a Hub id."})
    tuned: str = field(metadata={"help": "The tuned model, or an adapter of the old one: a folder or a Hub id."})
    retention: str = field(metadata={"help": "Held-out old text: a file, a folder or a Hub dataset."})
    task: str = field(metadata={"help": "Held-out text of the task: likewise."})
    output_dir: str = field(metadata={"help": "Folder of the chosen model, interpolation.json and interpolation.png."})
    max_forgetting: float | None = field(
        default=None, metadata={"help": "Choose the largest t that forgets at most so many nats per token."}
    )
    max_task_loss: str | None = field(
        default=None, metadata={"help": "Choose the smallest t whose task NLL is at most so far above tuned: +2%%."}
    )
    points: int | None = field(
        default=None, metadata={"help": "Models at equal distances; default 11, or with a budget the two ends."}
    )
    retention_column: str | None = field(
        default=None, metadata={"help": "Column of the old text; default by its name."}
    )
    task_column: str | None = field(default=None, metadata={"help": "Column of the task's text; likewise."})
    retention_split: str = field(default="test", metadata={"help": "Split of a folder or Hub dataset."})
    task_split: str = field(default="test", metadata={"help": "Split of a folder or Hub dataset."})
    retention_name: str = field(default="retention", metadata={"help": "What card and picture call the old text."})
    task_name: str = field(default="task", metadata={"help": "What card and picture call the task."})
    max_documents: int | None = field(default=None, metadata={"help": "Measure a random sample of either text."})
    seed: int = field(default=0, metadata={"help": "Of the samples and of the bootstrap intervals."})


def main() -> None:
    """Measure, write, and print the curve and what was chosen."""
    description = (
        "Measure models on the straight line between old and tuned weights, and write the one that is chosen."
    )
    args, windows, code = parse_arguments(
        InterpolateArguments, WindowArguments, CodeArguments, description=description
    )
    tokenizer = code.tokenizer(tokenizer_folder(args.base, args.tuned))
    retention, task = (
        document_texts(
            load_texts(text, split=split, max_documents=args.max_documents, seed=args.seed), column, tokenizer
        )
        for text, split, column in (
            (args.retention, args.retention_split, args.retention_column),
            (args.task, args.task_split, args.task_column),
        )
    )
    result = interpolate(
        args.base,
        args.tuned,
        retention,
        task,
        args.output_dir,
        max_forgetting=args.max_forgetting,
        max_task_loss=args.max_task_loss,
        points=args.points,
        seed=args.seed,
        names=TextNames(task=args.task_name, retention=args.retention_name),
        command=command_line(),
        trust_remote_code=code.trust_remote_code,
        **asdict(windows),
    )
    rows = [["t", f"perplexity on {args.task_name}", f"perplexity on {args.retention_name}", "forgetting (nats)"]]
    for p in result.points:
        rows.append([f"{p.t:.4f}", f"{p.task_perplexity:.2f}", f"{p.retention_perplexity:.2f}", f"{p.forgetting:.4f}"])
    print(markdown_table(rows))
    if result.chosen is not None:
        print(f"\nchosen    t = {result.chosen.t:.6g}, {result.budget}\nmodel     {args.output_dir}")

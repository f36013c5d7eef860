"""Measure forgetting with and without the penalty: pretrained, plain, and every setting, over several seeds.

accelerate launch recipes/forgetting_study.py --config recipes/forgetting_study.yaml --model gpt2 \
    --retention books_train.parquet --retention_test books_test.parquet \
    --task dialogs_train.parquet --task_test dialogs_test.parquet --retention_name books --task_name dialogs

The settings, seeds and lengths stand in the YAML file; what is given on the command line wins. Finished runs are kept
in the output folder, so the same command goes on where it was interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import AutoTokenizer

from ewc_hf.cli import parse_arguments
from ewc_hf.config import EWCConfig
from ewc_hf.data import document_texts, load_texts, pack
from ewc_hf.engines import launched
from ewc_hf.study import Measurement, StudyData, TextNames, markdown_report, parse_settings, run_study


@dataclass
class StudyArguments:
    """What is compared, on which model and text."""

    model: str = field(metadata={"help": "Pretrained checkpoint: a folder or a Hub id."})
    retention: str = field(metadata={"help": "Pretraining text for the importance: a file, folder or Hub dataset."})
    retention_test: str = field(metadata={"help": "Held-out text like it."})
    task: str = field(metadata={"help": "Dialogs or text to fine-tune on."})
    task_test: str = field(metadata={"help": "Held-out text like it."})
    settings: list[str] = field(
        default_factory=lambda: ["fisher:loss:10,30,100,300", "fisher:decoupled:10,30,100,300"],
        metadata={
            "help": "METHOD:COUPLING:LAMBDAS (fisher, mas, l2), WAY:STRENGTHS (rehearsal, old_answers, replay, "
            "self_replay, lwf, lora), plain, dft or eaft; then :OPTION=VALUES of EWCConfig, and :interpolated."
        },
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Each setting runs once with each."})
    retention_column: str | None = field(default=None, metadata={"help": "Text column of the pretraining text."})
    task_column: str | None = field(default=None, metadata={"help": "Column of the task's text or dialogs."})
    retention_name: str = field(default="retention", metadata={"help": "What the report calls the pretraining text."})
    task_name: str = field(default="task", metadata={"help": "What the report calls the task."})
    learn_from: str | None = field(
        default=None, metadata={"help": "Speaker or role whose words are learned; default all."}
    )
    block_size: int = field(default=128, metadata={"help": "Tokens an example."})
    max_retention_documents: int = field(
        default=200, metadata={"help": "Documents that the importance is sampled from."}
    )
    max_retention_test_documents: int = field(default=40, metadata={"help": "Held-out documents of pretraining text."})
    shared: str | None = field(
        default=None,
        metadata={
            "help": "Folder of importances and rehearsal rows that studies share; default 'shared' in output_dir."
        },
    )
    max_task_test_documents: int = field(default=300, metadata={"help": "Held-out documents of the task."})


def main() -> None:
    """Run the study."""
    args, training, measurement = parse_arguments(StudyArguments, EWCConfig, Measurement, description=__doc__)

    if launched().num_processes > 1:
        raise ValueError(f"expected one process, got {launched().num_processes}; launch with --num_processes 1")

    # 1. Text: packed blocks to learn from, whole documents to measure on.
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    retention = load_texts(args.retention, max_documents=args.max_retention_documents)
    retention_test = load_texts(args.retention_test, split="test", max_documents=args.max_retention_test_documents)
    task = load_texts(args.task)
    task_test = load_texts(args.task_test, split="test", max_documents=args.max_task_test_documents)
    data = StudyData(
        retention_examples=pack(retention, tokenizer, args.block_size, column=args.retention_column),
        task_examples=pack(task, tokenizer, args.block_size, column=args.task_column, learn_from=args.learn_from),
        retention_texts=document_texts(retention_test, args.retention_column),
        task_texts=document_texts(task_test, args.task_column),
        names=TextNames(task=args.task_name, retention=args.retention_name),
    )

    # 2. Importance, fine-tuning and perplexity for each setting and seed.
    settings = parse_settings(args.settings)
    records = run_study(args.model, data, settings, args.seeds, training, measurement, args.shared)

    # 3. The report's tables; the same and the picture are in the output folder.
    print(markdown_report(records, data.names))


if __name__ == "__main__":
    main()

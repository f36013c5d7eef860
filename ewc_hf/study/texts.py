"""What a study reads, from files, folders or the Hub: arguments of recipes and commands."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data import document_texts, load_texts, pack
from ..storage import load_tokenizer
from .protocol import StudyData
from .records import TextNames


@dataclass
class StudyTexts:
    """On which model and text."""

    model: str = field(metadata={"help": "Pretrained checkpoint: a folder or a Hub id."})
    retention: str = field(metadata={"help": "Pretraining text for the importance: a file, folder or Hub dataset."})
    retention_test: str = field(metadata={"help": "Held-out text like it."})
    task: str = field(metadata={"help": "Dialogs or text to fine-tune on."})
    task_test: str = field(metadata={"help": "Held-out text like it."})
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
    budget_text: str | None = field(
        default=None, metadata={"help": "More held-out text like it, on which settings with max_forgetting keep it."}
    )
    budget_tokens: int = field(default=500, metadata={"help": "Cut each of its documents after so many tokens."})
    max_task_test_documents: int = field(default=300, metadata={"help": "Held-out documents of the task."})


def read_study_data(texts: StudyTexts) -> StudyData:
    """Return packed blocks to learn from, and whole documents to measure on."""
    tokenizer = load_tokenizer(texts.model)
    retention = load_texts(texts.retention, max_documents=texts.max_retention_documents)
    retention_test = load_texts(texts.retention_test, split="test", max_documents=texts.max_retention_test_documents)
    task = load_texts(texts.task)
    task_test = load_texts(texts.task_test, split="test", max_documents=texts.max_task_test_documents)
    budget_texts = []
    if texts.budget_text is not None:
        most = texts.max_retention_test_documents
        documents = load_texts(texts.budget_text, split="validation", max_documents=most)
        budget_texts = document_texts(documents, texts.retention_column, tokenizer, texts.budget_tokens)
    return StudyData(
        retention_examples=pack(retention, tokenizer, texts.block_size, column=texts.retention_column),
        task_examples=pack(task, tokenizer, texts.block_size, column=texts.task_column, learn_from=texts.learn_from),
        retention_texts=document_texts(retention_test, texts.retention_column, tokenizer),
        task_texts=document_texts(task_test, texts.task_column, tokenizer),
        budget_texts=budget_texts,
        names=TextNames(task=texts.task_name, retention=texts.retention_name),
    )

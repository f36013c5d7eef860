"""What a study reads, from files, folders or the Hub: arguments of recipes and commands."""

from __future__ import annotations

from dataclasses import dataclass, field

from datasets import Dataset
from transformers.utils import logging

from ..data import IGNORED, document_texts, load_texts, pack
from ..storage import load_tokenizer
from .protocol import StudyData
from .records import TextNames

logger = logging.get_logger(__name__)

_ASKED = 100
"""Blocks of a task that are looked at."""


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
    max_task_test_documents: int = field(default=300, metadata={"help": "Held-out documents of the task."})


@dataclass
class BudgetText:
    """On which text budgets of forgetting are kept.

    Raises:
        ValueError: documents are to be cut where there are none.
    """

    budget_text: str | None = field(
        default=None,
        metadata={"help": "Held-out old text, other than retention_test, on which settings keep max_forgetting."},
    )
    budget_tokens: int | None = field(default=None, metadata={"help": "Cut its documents after so many tokens."})
    max_budget_documents: int = field(default=40, metadata={"help": "Documents of it."})

    def __post_init__(self) -> None:
        """Check that there is something to cut."""
        if self.budget_text is None and self.budget_tokens is not None:
            raise ValueError(f"expected budget_text beside budget_tokens {self.budget_tokens}, got None; name it")


def read_study_data(texts: StudyTexts, budget: BudgetText | None = None, trust_remote_code: bool = False) -> StudyData:
    """Return packed blocks to learn from, and whole documents to measure on.

    Args:
        texts: what is read.
        budget: text on which settings with `max_forgetting` keep it.
        trust_remote_code: run the code that the model brings along.
    """
    tokenizer = load_tokenizer(texts.model, trust_remote_code)
    retention = load_texts(texts.retention, max_documents=texts.max_retention_documents)
    retention_test = load_texts(texts.retention_test, split="test", max_documents=texts.max_retention_test_documents)
    task = load_texts(texts.task)
    task_test = load_texts(texts.task_test, split="test", max_documents=texts.max_task_test_documents)
    budget_texts = []
    if budget is not None and budget.budget_text is not None:
        documents = load_texts(budget.budget_text, split="validation", max_documents=budget.max_budget_documents)
        budget_texts = document_texts(documents, texts.retention_column, tokenizer, budget.budget_tokens)
    learned = pack(task, tokenizer, texts.block_size, column=texts.task_column, learn_from=texts.learn_from)
    warn_of_whole_documents(learned, texts.task_name)
    return StudyData(
        retention_examples=pack(retention, tokenizer, texts.block_size, column=texts.retention_column),
        task_examples=learned,
        retention_texts=document_texts(retention_test, texts.retention_column, tokenizer),
        task_texts=document_texts(task_test, texts.task_column, tokenizer),
        budget_texts=budget_texts,
        names=TextNames(task=texts.task_name, retention=texts.retention_name),
    )


def warn_of_whole_documents(blocks: Dataset, name: str) -> None:
    """Say of a task of which words are learned and others are not that its held-out documents are scored whole.

    Args:
        blocks: of the task, as they are learned.
        name: of the task.
    """
    labels = [label for of_block in blocks[:_ASKED]["labels"] for label in of_block]
    share = 1 - labels.count(IGNORED) / len(labels)
    if share < 1:
        logger.warning(
            f"Of '{name}' {share:.0%} of the tokens are learned, but held-out documents are scored whole, with their "
            "prompts and every speaker: the task's NLL is of both"
        )

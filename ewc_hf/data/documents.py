"""Rows of a dataset as documents, texts or chats, told apart by their columns; and documents as tokens and labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from .chat import Chat, Piece, chat_of, lines_of, without_nulls
from .labels import IGNORED
from .template import applies_template, marked_tokens, templated_pieces, templated_text

Document = Chat | list[Piece]
"""A chat, or a text in pieces."""
_BESIDE = ("input", "tools")
"""Columns that are read where they are there: what an instruction is about, and what an assistant may call."""


@dataclass(frozen=True)
class RowForm:
    """What rows look like, and how a document is read from one.

    Attributes:
        columns: that a row needs.
        read: makes a document of a row.
    """

    columns: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], Document]

    def of(self, dataset: Dataset | IterableDataset) -> Dataset | IterableDataset:
        """Return a dataset with those columns only that are read."""
        names = columns_of(dataset)
        return dataset.select_columns([name for name in names if name in (*self.columns, *_BESIDE)])

    def document(self, row: Mapping[str, Any], number: int) -> Document:
        """Read a row.

        Args:
            row: its columns.
            number: of the row in its dataset, to name it by.

        Raises:
            ValueError: it holds neither a text nor a chat.
        """
        with naming_row(number):
            return self.read(row)


def row_form(dataset: Dataset | IterableDataset, column: str | None = None) -> RowForm:
    """Tell what a dataset's rows look like, by the names of their columns.

    | columns | a document |
    |---|---|
    | `turns`, `messages` or `conversations` | a chat, see `chat_of` |
    | `prompt` and `completion` | two texts or lists of messages, of which the completion is learned |
    | `instruction` and `output`, with or without `input` | a user's message and the assistant's, which is learned |
    | `text` | a text, or a chat |

    The first of these rows whose columns are there counts.

    Args:
        dataset: the rows.
        column: which one column to read in place of these.

    Raises:
        ValueError: no such columns.
    """
    names = columns_of(dataset)
    forms = _FORMS if column is None else [_of_column(column)]
    for form in forms:
        if set(form.columns) <= set(names):
            return form
    expected = " or ".join(" and ".join(form.columns) for form in forms)
    raise ValueError(f"expected a column named {expected}, got {names}; rename it, or name it by the command's option")


def columns_of(dataset: Dataset | IterableDataset) -> list[str]:
    """Return the names of a dataset's columns; a stream may have to tell them by its first row.

    Raises:
        ValueError: it is a mapping of several datasets.
    """
    if isinstance(dataset, Mapping):
        raise ValueError(f"expected one dataset, got a mapping of {sorted(dataset)}; choose one of these splits")
    return dataset.column_names or list(next(iter(dataset), {}))


def document_texts(
    dataset: Dataset | IterableDataset,
    column: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_tokens: int | None = None,
) -> list[str]:
    """Return every row of a dataset as one string, as `evaluate_perplexity` takes it.

    A beginning-of-text token with which a chat template begins is left out, since that puts one before each text.

    Args:
        dataset: rows as `row_form` knows them.
        column: which column to read; None tells by their names.
        tokenizer: whose chat template, where it has one, writes chats; else they are `role: words` lines.
        max_tokens: of this tokenizer, a fast one, after which each text is cut.

    Raises:
        ValueError: no such column, a row that is neither a text nor a chat, with its number, or no token to be kept.
    """
    if max_tokens is not None and (tokenizer is None or not tokenizer.is_fast):
        raise ValueError(f"expected a fast tokenizer to cut documents by, got {type(tokenizer).__name__}")
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"expected a token to be kept of each document, got {max_tokens} as the most; name more")
    form = row_form(dataset, column)
    texts = []
    for number, row in enumerate(form.of(dataset)):
        document = form.document(row, number)
        with naming_row(number):
            texts.append(_text_of(document, tokenizer))
    return texts if max_tokens is None else [_cut(text, tokenizer, max_tokens) for text in texts]


def _cut(text: str, tokenizer: PreTrainedTokenizerBase | None, max_tokens: int) -> str:
    assert tokenizer is not None
    ends = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)["offset_mapping"]
    return text if len(ends) <= max_tokens else text[: ends[max_tokens - 1][1]]


def encode(
    document: Document, tokenizer: PreTrainedTokenizerBase, learn_from: str | None = None
) -> tuple[list[int], list[int]]:
    """Return a document's tokens and labels, -100 where they do not count.

    The end-of-text token follows, as a label where the last piece is one, unless a chat template wrote the document,
    which ends it in its own way.

    Args:
        document: what is tokenized as a whole, so that tokens may cross pieces; a token belongs to the piece in which
            it ends.
        tokenizer: a fast one.
        learn_from: see `Chat.learned_runs`.
    """
    if isinstance(document, Chat) and applies_template(document, tokenizer):
        marked = marked_tokens(document, tokenizer, learn_from)
        return _encoded(templated_pieces(document, tokenizer, learn_from), tokenizer) if marked is None else marked
    pieces = lines_of(document, learn_from) if isinstance(document, Chat) else document
    ids, labels = _encoded(pieces, tokenizer)
    end_of_text = tokenizer.eos_token_id
    return [*ids, end_of_text], [*labels, end_of_text if not pieces or pieces[-1][1] else IGNORED]


@contextmanager
def naming_row(number: int) -> Iterator[None]:
    """Name the row of which an error tells."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from error


def _text_of(document: Document, tokenizer: PreTrainedTokenizerBase | None) -> str:
    if isinstance(document, Chat):
        if tokenizer is not None and applies_template(document, tokenizer):
            return templated_text(document, tokenizer).removeprefix(tokenizer.bos_token or "")
        document = lines_of(document)
    return "".join(text for text, _ in document)


def _encoded(pieces: Sequence[Piece], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    encoding = tokenizer(
        "".join(text for text, _ in pieces),
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    ids = encoding["input_ids"]
    if all(learned for _, learned in pieces):
        return ids, list(ids)
    learned_at = list(chain.from_iterable([learned] * len(text) for text, learned in pieces))
    ends = (end for _, end in encoding["offset_mapping"])
    return ids, [token if learned_at[max(end, 1) - 1] else IGNORED for token, end in zip(ids, ends, strict=True)]


def _of_column(column: str) -> RowForm:
    return RowForm((column,), lambda row: _text_or_chat(row[column], row))


def _of_chats(column: str) -> RowForm:
    def read(row: Mapping[str, Any]) -> Document:
        value = row[column]
        is_json = isinstance(value, str) and value.lstrip().startswith("[")
        return _text_or_chat(_from_json(column, value) if is_json else value, row)

    return RowForm((column,), read)


def _text_or_chat(value: Any, row: Mapping[str, Any]) -> Document:
    return [(value, True)] if isinstance(value, str) else chat_of(value, _tools(row))


def _prompted(row: Mapping[str, Any]) -> Document:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        return [(prompt, False), (completion, True)]
    if not isinstance(prompt, list) or not isinstance(completion, list):
        raise ValueError(
            f"expected prompt and completion as two texts or two lists of messages, got {prompt!r:.100} and "
            f"{completion!r:.100}; filter such rows out"
        )
    if not completion:
        raise ValueError("expected a completion of at least one message, got none; filter such rows out")
    return replace(chat_of([*prompt, *completion], _tools(row)), answer=len(prompt))


def _instructed(row: Mapping[str, Any]) -> Document:
    texts = [text for text in (row["instruction"], row.get("input")) if text not in (None, "")]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"expected instruction and input as texts, got {texts!r:.100}; read these columns as text")
    asked = "\n\n".join(texts)
    return replace(
        chat_of([{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]), answer=1
    )


def _tools(row: Mapping[str, Any]) -> list[Any] | None:
    tools = row.get("tools")
    return without_nulls(_from_json("tools", tools) if isinstance(tools, str) and tools.strip() else tools) or None


def _from_json(column: str, value: str) -> Any:
    """Return the list that a file which holds none, such as one of CSV, holds as JSON."""
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"expected JSON in the column '{column}', got {value!r:.100} ({error}); mend it") from error


_FORMS = [
    _of_chats("turns"),
    _of_chats("messages"),
    _of_chats("conversations"),
    RowForm(("prompt", "completion"), _prompted),
    RowForm(("instruction", "output"), _instructed),
    _of_column("text"),
]

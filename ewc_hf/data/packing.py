"""Packing documents into blocks of tokens of equal length."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, IterableDataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from .chat import Chat
from .documents import RowForm, columns_of, encode, naming_row, row_form
from .recognised import require_words, tell_once

_CODE = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()
"""By which `datasets`, which keeps blocks between runs, tells them from those that other code of this folder made."""
_PORTION = 200
"""Documents that are tokenized at once where not all are wanted."""
_MOST_ASKED = 1000
"""Documents of a stream among which a speaker is looked for."""


def pack(
    dataset: Dataset | IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    block_size: int,
    *,
    column: str | None = None,
    learn_from: str | None = None,
    max_blocks: int | None = None,
    seed: int = 0,
) -> Dataset | IterableDataset:
    """Tokenize documents, join them and cut them into blocks of equal length.

    Chats are written by the tokenizer's chat template, where it has one, else as `role: words` lines. The end-of-text
    token follows each document that no template wrote. The remainder of each batch of 1,000 documents (200 with
    `max_blocks`) that fills no block is dropped.

    >>> chat = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A friend."}]
    >>> blocks = pack(Dataset.from_list([{"messages": chat}] * 50), tokenizer, 16, learn_from="assistant")

    Args:
        dataset: rows of texts or chats, as `row_form` knows them; a stream too.
        tokenizer: a fast tokenizer with an end-of-text token.
        block_size: tokens a block.
        column: which column to read; None tells by their names.
        learn_from: of chats, the speaker or role whose words are labels; None is the completion where rows have a
            prompt, else everyone's.
        max_blocks: how many are wanted at most. Documents are then taken in random order, of a stream in its own, and
            no more of them are tokenized than fill so many blocks. None is all documents, in their order.
        seed: of that order.

    Returns:
        A dataset of `input_ids` and `labels`; labels that do not count are -100. Of a stream without `max_blocks` it
        is a stream.

    Raises:
        ValueError: no such column, a row that is neither a text nor a chat, `learn_from` given for plain text or
            nobody's name, a tokenizer that is slow, has no end-of-text token or makes no tokens, a chat that its
            template refuses, `max_blocks` below 1, or too little text for one block.
    """
    if block_size < 2:
        raise ValueError(f"expected block_size >= 2, one token to see and one to predict, got {block_size}")
    if max_blocks is not None and max_blocks < 1:
        raise ValueError(f"expected max_blocks >= 1, got {max_blocks}")
    form = row_form(dataset, column)
    if learn_from is not None:
        _require_speaker(dataset, form, learn_from)
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        raise ValueError(
            f"expected a fast tokenizer with an end-of-text token, got {type(tokenizer).__name__} with "
            f"eos_token={tokenizer.eos_token}; set `tokenizer.eos_token`"
        )
    require_words(tokenizer)
    tell_once(dataset, form, tokenizer, learn_from)

    def packed(documents: Dataset | IterableDataset, numbers: Sequence[int] | None = None) -> Dataset:
        """Pack documents, which have these numbers in the whole dataset."""

        def tokenize_and_cut(rows: dict[str, list[Any]], indices: list[int], code: str) -> dict[str, list[list[int]]]:
            encoded = []
            for place, index in enumerate(indices):
                number = index if numbers is None else numbers[index]
                document = form.document({name: values[place] for name, values in rows.items()}, number)
                with naming_row(number):
                    encoded.append(encode(document, tokenizer, learn_from))
            tokens = list(chain.from_iterable(ids for ids, _ in encoded))
            labels = list(chain.from_iterable(of_document for _, of_document in encoded))
            starts = range(0, len(tokens) - block_size + 1, block_size)
            return {
                "input_ids": [tokens[start : start + block_size] for start in starts],
                "labels": [labels[start : start + block_size] for start in starts],
            }

        documents = form.of(documents)
        how: dict[str, Any] = {"fn_kwargs": {"code": _CODE}}
        if not isinstance(documents, IterableDataset):
            how["desc"] = f"tokenizing into blocks of {block_size}"
        return documents.map(
            tokenize_and_cut, with_indices=True, batched=True, remove_columns=columns_of(documents), **how
        )

    if isinstance(dataset, IterableDataset):
        if max_blocks is None:
            return packed(dataset)
        first = list(islice(packed(dataset), max_blocks))
        blocks = Dataset.from_list(first)
    elif max_blocks is None:
        blocks = packed(dataset)
    else:
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
        portions: list[Dataset] = []
        while sum(map(len, portions)) < max_blocks and (chosen := order[len(portions) * _PORTION :][:_PORTION]):
            portions.append(packed(dataset.select(chosen), chosen))
        blocks = concatenate_datasets(portions)
        blocks = blocks.select(range(min(max_blocks, len(blocks))))
    if len(blocks) == 0:
        number = "the stream" if isinstance(dataset, IterableDataset) else f"{len(dataset)} documents"
        raise ValueError(
            f"expected text for at least one block of {block_size} tokens, got less in {number}; "
            "give more text, more documents of it, or a smaller block_size"
        )
    return blocks


def _require_speaker(dataset: Dataset | IterableDataset, form: RowForm, learn_from: str) -> None:
    roles: set[str] = set()
    rows = islice(dataset, _MOST_ASKED) if isinstance(dataset, IterableDataset) else dataset
    for number, row in enumerate(rows):
        document = form.document(row, number)
        if not isinstance(document, Chat):
            columns = "' and '".join(form.columns)
            raise ValueError(f"expected dialogs for learn_from='{learn_from}', got plain text in '{columns}'")
        roles.update(message["role"] for message in document.messages)
        if learn_from in roles:
            return
    raise ValueError(f"expected learn_from to be one of {sorted(roles)}, got '{learn_from}'")

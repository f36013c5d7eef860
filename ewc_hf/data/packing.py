"""Packing documents into blocks of tokens of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from .chat import document_segments, speakers_in
from .labels import IGNORED
from .text import text_column

_PORTION = 200
"""Documents that are tokenized at once where not all are wanted."""


def pack(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    block_size: int,
    *,
    column: str | None = None,
    learn_from: str | None = None,
    max_blocks: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Tokenize documents, join them with the end-of-text token and cut them into blocks of equal length.

    The remainder of each batch of 1,000 documents (200 with `max_blocks`) that fills no block is dropped.

    Args:
        dataset: rows with text or dialogs.
        tokenizer: a fast tokenizer with an end-of-text token.
        block_size: tokens a block.
        column: which column; by default `turns`, `messages` or `text`.
        learn_from: of dialogs, the speaker or role whose words are labels; None is all.
        max_blocks: how many are wanted at most. Documents are then taken in random order, and no more of them are
            tokenized than fill so many blocks. None is all documents, in their order.
        seed: of that order.

    Returns:
        A dataset of `input_ids` and `labels`; labels that do not count are -100.

    Raises:
        ValueError: no such column, a row that is neither a text nor a dialog of texts, `learn_from` given for plain
            text or nobody's name, a slow tokenizer or one without an end-of-text token, `max_blocks` below 1, or too
            little text for one block.
    """
    column = text_column(dataset, column)
    if block_size < 2:
        raise ValueError(f"expected block_size >= 2, one token to see and one to predict, got {block_size}")
    if learn_from is not None:
        _require_speaker(dataset, column, learn_from)
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        raise ValueError(
            f"expected a fast tokenizer with an end-of-text token, got {type(tokenizer).__name__} with "
            f"eos_token={tokenizer.eos_token}; set `tokenizer.eos_token`"
        )

    if max_blocks is not None and max_blocks < 1:
        raise ValueError(f"expected max_blocks >= 1, got {max_blocks}")

    def packed(documents: Dataset, numbers: Sequence[int]) -> Dataset:
        """Pack documents, which have these numbers in the whole dataset."""

        def tokenize_and_cut(rows: dict[str, list[Any]], indices: list[int]) -> dict[str, list[list[int]]]:
            numbered = zip(rows[column], indices, strict=True)
            segments = [document_segments(row, numbers[index], learn_from) for row, index in numbered]
            encoded = [_encode(document, tokenizer) for document in segments]
            tokens = list(chain.from_iterable(ids for ids, _ in encoded))
            labels = list(chain.from_iterable(of_document for _, of_document in encoded))
            starts = range(0, len(tokens) - block_size + 1, block_size)
            return {
                "input_ids": [tokens[start : start + block_size] for start in starts],
                "labels": [labels[start : start + block_size] for start in starts],
            }

        return documents.map(
            tokenize_and_cut,
            with_indices=True,
            batched=True,
            remove_columns=documents.column_names,
            desc=f"tokenizing into blocks of {block_size}",
        )

    if max_blocks is None:
        blocks = packed(dataset, range(len(dataset)))
    else:
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
        portions: list[Dataset] = []
        while sum(map(len, portions)) < max_blocks and (chosen := order[len(portions) * _PORTION :][:_PORTION]):
            portions.append(packed(dataset.select(chosen), chosen))
        blocks = concatenate_datasets(portions)
        blocks = blocks.select(range(min(max_blocks, len(blocks))))
    if len(blocks) == 0:
        raise ValueError(
            f"expected text for at least one block of {block_size} tokens, got less in {len(dataset)} documents; "
            "give more text or a smaller block_size"
        )
    return blocks


def _require_speaker(dataset: Dataset, column: str, learn_from: str) -> None:
    if isinstance(dataset[0][column], str):
        raise ValueError(f"expected dialogs for learn_from='{learn_from}', got plain text in the column '{column}'")
    speakers: set[str] = set()
    for number, dialog in enumerate(dataset[column]):
        speakers.update(speakers_in(dialog, number))
        if learn_from in speakers:
            return
    raise ValueError(f"expected learn_from to be one of {sorted(speakers)}, got '{learn_from}'")


def _encode(segments: list[tuple[str, bool]], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Tokenize the whole text, so that tokens may cross pieces, and label each token by the piece in which it ends.

    The end-of-text token follows; it is a label where the last piece is.
    """
    encoding = tokenizer(
        "".join(text for text, _ in segments),
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    ids, end_of_text = encoding["input_ids"], tokenizer.eos_token_id
    if all(learned for _, learned in segments):
        return [*ids, end_of_text], [*ids, end_of_text]
    learned_at = list(chain.from_iterable([learned] * len(text) for text, learned in segments))
    labels = [
        token if learned_at[max(end, 1) - 1] else IGNORED
        for token, (_, end) in zip(ids, encoding["offset_mapping"], strict=True)
    ]
    return [*ids, end_of_text], [*labels, end_of_text if learned_at[-1] else IGNORED]

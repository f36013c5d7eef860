"""Packing documents into blocks of tokens of equal length."""

from __future__ import annotations

from itertools import chain
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from .chat import document_segments, speaker_and_words
from .labels import IGNORED
from .text import text_column


def pack(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    block_size: int,
    *,
    column: str | None = None,
    learn_from: str | None = None,
) -> Dataset:
    """Tokenize documents, join them with the end-of-text token and cut them into blocks of equal length.

    The remainder of each batch of 1,000 documents that fills no block is dropped.

    Args:
        dataset: rows with text or dialogs.
        tokenizer: a fast tokenizer with an end-of-text token.
        block_size: tokens a block.
        column: which column; by default `turns`, `messages` or `text`.
        learn_from: of dialogs, the speaker or role whose words are labels; None is all.

    Returns:
        A dataset of `input_ids` and `labels`; labels that do not count are -100.

    Raises:
        ValueError: no such column, `learn_from` given for plain text or nobody's name, a slow tokenizer or one without
            an end-of-text token, or too little text for one block.
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

    def tokenize_and_cut(rows: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
        documents = [document_segments(row, learn_from) for row in rows[column]]
        encoded = [_encode(document, tokenizer) for document in documents]
        tokens = list(chain.from_iterable(ids for ids, _ in encoded))
        labels = list(chain.from_iterable(of_document for _, of_document in encoded))
        starts = range(0, len(tokens) - block_size + 1, block_size)
        return {
            "input_ids": [tokens[start : start + block_size] for start in starts],
            "labels": [labels[start : start + block_size] for start in starts],
        }

    blocks = dataset.map(
        tokenize_and_cut,
        batched=True,
        remove_columns=dataset.column_names,
        desc=f"tokenizing into blocks of {block_size}",
    )
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
    for turns in dataset[column]:
        speakers.update(speaker_and_words(turn)[0] for turn in turns)
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

"""Reading text and dialogs from local files or Hub datasets, and packing tokens into blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from transformers import PreTrainedTokenizerBase

from .labels import IGNORED

_READERS = {".txt": "text", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}
_DIALOG_COLUMNS = ("turns", "messages")


def load_texts(source: str, *, split: str = "train", max_documents: int | None = None, seed: int = 0) -> Dataset:
    """Read a dataset from a local file, a folder of files, or the Hub.

    Args:
        source: a `.txt` (one document), `.json`, `.jsonl`, `.csv` or `.parquet` file, a folder of such files of one
            kind, or a Hub id. Of a folder only the files that begin with `split` are read, where there are any.
        split: the split of a Hub dataset or folder.
        max_documents: read at most so many, a random sample by `seed`.
        seed: of the sample.

    Raises:
        ValueError: nothing there that can be read, files of several kinds, or no document.
    """
    path = Path(source)
    arguments = _local_files(path, split) if path.exists() else {"path": source, "split": split}
    try:
        dataset = load_dataset(**arguments)
    except Exception as error:
        raise ValueError(
            f"expected at least one document in '{source}', got {type(error).__name__}: {error}; check the file and "
            "the split, or the Hub dataset's name and the network"
        ) from error
    if len(dataset) == 0:
        raise ValueError(f"expected at least one document in '{source}', got none; check the file and the split")
    if max_documents is not None and max_documents < len(dataset):
        dataset = dataset.shuffle(seed=seed).select(range(max_documents))
    return dataset


def _local_files(path: Path, split: str) -> dict[str, Any]:
    """Return the arguments with which `load_dataset` reads a file or a folder of files."""
    files = [path] if path.is_file() else sorted(path.iterdir())
    readable = [file for file in files if file.suffix in _READERS]
    readable = [file for file in readable if re.match(rf"{re.escape(split)}(?![^\W_])", file.name)] or readable
    kinds = {file.suffix for file in readable}
    if len(kinds) != 1:
        raise ValueError(
            f"expected files of one of the kinds {sorted(_READERS)} in '{path}', got {sorted(kinds) or 'none'}; "
            "name one file"
        )
    if not any(file.stat().st_size for file in readable):
        raise ValueError(f"expected at least one document in '{path}', got none; check the file and the split")
    reader = _READERS[kinds.pop()]
    arguments = {"path": reader, "data_files": [str(file) for file in readable], "split": "train"}
    return arguments | ({"sample_by": "document"} if reader == "text" else {})


def document_texts(dataset: Dataset, column: str | None = None) -> list[str]:
    """Return every row of a dataset as one string; dialogs are written turn by turn.

    Args:
        dataset: rows with a text column, or with dialogs (see `dialog_segments`).
        column: which column; by default `turns`, `messages` or `text`, whichever is there.

    Raises:
        ValueError: no such column.
    """
    column = text_column(dataset, column)
    return ["".join(text for text, _ in _segments(row, None)) for row in dataset[column]]


def text_column(dataset: Dataset, column: str | None = None) -> str:
    """Return the column that holds the text: `column`, else `turns`, `messages` or `text`, whichever is there.

    Raises:
        ValueError: no such column.
    """
    candidates = (*_DIALOG_COLUMNS, "text") if column is None else (column,)
    for candidate in candidates:
        if candidate in dataset.column_names:
            return candidate
    raise ValueError(
        f"expected a column named {' or '.join(candidates)}, got {dataset.column_names}; name it by the flag"
    )


def dialog_segments(turns: Iterable[dict[str, str]], learn_from: str | None = None) -> list[tuple[str, bool]]:
    r"""Write a dialog as `speaker: text\n` lines, and tell which pieces are learned.

    Args:
        turns: each with `speaker` and `text`, or with `role` and `content`.
        learn_from: the speaker or role whose words are labels; None is everyone's, names included.

    Returns:
        Pieces of text that join to the whole, each with whether its tokens are labels.

    Raises:
        ValueError: a turn without these keys.
    """
    segments = []
    for turn in turns:
        speaker, words = _speaker_and_words(turn)
        segments.append((f"{speaker}:", learn_from is None))
        segments.append((f" {words}\n", learn_from in (None, speaker)))
    return segments


def _speaker_and_words(turn: dict[str, str]) -> tuple[str, str]:
    try:
        return (turn["role"], turn["content"]) if "role" in turn else (turn["speaker"], turn["text"])
    except KeyError as error:
        raise ValueError(
            f"expected turns with 'speaker' and 'text' or 'role' and 'content', got {sorted(turn)}"
        ) from error


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
        documents = [_segments(row, learn_from) for row in rows[column]]
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
        speakers.update(_speaker_and_words(turn)[0] for turn in turns)
        if learn_from in speakers:
            return
    raise ValueError(f"expected learn_from to be one of {sorted(speakers)}, got '{learn_from}'")


def _segments(row: Any, learn_from: str | None) -> list[tuple[str, bool]]:
    if isinstance(row, str):
        return [(row, True)]
    if not isinstance(row, list):
        raise ValueError(f"expected a text or a list of turns in each row, got {row!r}; filter such rows out")
    return dialog_segments(row, learn_from)


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

"""A document as tokens, and the text that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Document:
    """What is read, and the text that is scored.

    Attributes:
        tokens: what begins every document, if anything, and then the document's own tokens.
        scored_text: the text of all tokens but the first of `tokens`.
        token_texts: that text token by token; empty where a token is the rest of a character that begins in another.
    """

    tokens: list[int]
    scored_text: str
    token_texts: list[str]


def first_token(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return what begins every document: the beginning- or else the end-of-text token, or nothing where none is."""
    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return [] if first is None else [first]


def read_document(tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int | None) -> Document:
    """Return a document's tokens and its scored text.

    A token's text begins where that of the one before it ends, whatever white space its own offsets leave out, and the
    last one's, of a whole document, goes on to the document's end. A character that two tokens share belongs to both.

    Args:
        tokenizer: a fast one.
        text: the document.
        max_tokens: its own tokens to keep; None keeps all.
    """
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
    first, kept = first_token(tokenizer), ids[:max_tokens]
    tokens = first + kept
    if len(tokens) < 2:
        return Document(tokens, "", [])
    begin = 0 if first else min(offsets[0][1], offsets[1][0])
    end = len(text) if len(kept) == len(ids) else offsets[len(kept) - 1][1]
    ends = [*(min(stop, end) for _, stop in offsets[: len(kept) - 1]), end]
    own = ends if first else ends[1:]
    return Document(tokens, text[begin:end], [text[a:b] for a, b in pairwise([begin, *own])])

"""Dialogs as text: who speaks, what is said, and whose words are learned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def dialog_segments(turns: Iterable[Any], learn_from: str | None = None) -> list[tuple[str, bool]]:
    r"""Write a dialog as `speaker: text\n` lines, and tell which pieces are learned.

    Args:
        turns: each with `speaker` and `text`, or with `role` and `content`. What is said is a text, or a list of parts
            `{"type": "text", "text": ...}`, whose texts are joined.
        learn_from: the speaker or role whose words are labels; None is everyone's, names included.

    Returns:
        Pieces of text that join to the whole, each with whether its tokens are labels.

    Raises:
        ValueError: a turn without these keys, or whose values are no text.
    """
    segments = []
    for turn in turns:
        speaker, words = speaker_and_words(turn)
        segments.append((f"{speaker}:", learn_from is None))
        segments.append((f" {words}\n", learn_from in (None, speaker)))
    return segments


def speaker_and_words(turn: Any) -> tuple[str, str]:
    """Return who speaks in a turn, and what.

    Raises:
        ValueError: neither `speaker` and `text` nor `role` and `content` are there, or they are no text.
    """
    try:
        speaker, said = (turn["role"], turn["content"]) if "role" in turn else (turn["speaker"], turn["text"])
    except (KeyError, TypeError) as error:
        got = sorted(turn) if isinstance(turn, Mapping) else repr(turn)
        raise ValueError(
            f"expected turns with 'speaker' and 'text' or 'role' and 'content', got {got}; rename the keys"
        ) from error
    if not isinstance(speaker, str):
        raise ValueError(f"expected the speaker or role of each turn as text, got {speaker!r}; filter such rows out")
    return speaker, said if isinstance(said, str) else _joined(said)


def _joined(parts: Any) -> str:
    """Return the texts of parts `{"type": "text", "text": ...}` as one."""
    texts = []
    for part in parts if isinstance(parts, list) else [parts]:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise ValueError(
                "expected what is said as a text or a list of parts {'type': 'text', 'text': ...}, got "
                f"{part!r:.200}; filter such rows out"
            )
        texts.append(text)
    return "".join(texts)


def document_segments(row: Any, number: int, learn_from: str | None = None) -> list[tuple[str, bool]]:
    """Write a row, a text or a dialog, as pieces of text, and tell which are learned: of a text all.

    Args:
        row: the text, or the list of turns.
        number: of the row in its dataset, to name it by.
        learn_from: see `dialog_segments`.

    Raises:
        ValueError: the row is neither, or one of its turns is not as `dialog_segments` takes it.
    """
    if isinstance(row, str):
        return [(row, True)]
    with _naming_row(number):
        return dialog_segments(_turns(row), learn_from)


def speakers_in(row: Any, number: int) -> set[str]:
    """Return who speaks in a row's dialog.

    Args:
        row: the list of turns.
        number: of the row in its dataset, to name it by.

    Raises:
        ValueError: as `document_segments`.
    """
    with _naming_row(number):
        return {speaker_and_words(turn)[0] for turn in _turns(row)}


def _turns(row: Any) -> list[Any]:
    if not isinstance(row, list):
        raise ValueError(f"expected a text or a list of turns, got {row!r:.200}; filter such rows out")
    return row


@contextmanager
def _naming_row(number: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from error

"""Dialogs as text: who speaks, what is said, and whose words are learned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


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
        speaker, words = speaker_and_words(turn)
        segments.append((f"{speaker}:", learn_from is None))
        segments.append((f" {words}\n", learn_from in (None, speaker)))
    return segments


def speaker_and_words(turn: dict[str, str]) -> tuple[str, str]:
    """Return who speaks in a turn, and what.

    Raises:
        ValueError: neither `speaker` and `text` nor `role` and `content` are there.
    """
    try:
        return (turn["role"], turn["content"]) if "role" in turn else (turn["speaker"], turn["text"])
    except KeyError as error:
        raise ValueError(
            f"expected turns with 'speaker' and 'text' or 'role' and 'content', got {sorted(turn)}"
        ) from error


def document_segments(row: Any, learn_from: str | None = None) -> list[tuple[str, bool]]:
    """Write a row, a text or a dialog, as pieces of text, and tell which are learned: of a text all.

    Raises:
        ValueError: the row is neither.
    """
    if isinstance(row, str):
        return [(row, True)]
    if not isinstance(row, list):
        raise ValueError(f"expected a text or a list of turns in each row, got {row!r}; filter such rows out")
    return dialog_segments(row, learn_from)

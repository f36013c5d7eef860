"""A window that slides over a document's tokens."""

from __future__ import annotations

from collections.abc import Iterator


def windows(tokens: list[int], window: int, stride: int) -> Iterator[tuple[list[int], int]]:
    """Yield windows and how many tokens at the end of each are scored there; the first of a window never is.

    Args:
        tokens: a document's.
        window: tokens.
        stride: tokens that the window moves by, fewer than it has.
    """
    scored_until = 1
    for start in range(0, max(len(tokens) - window, 0) + stride, stride):
        end = min(start + window, len(tokens))
        if end > scored_until:
            yield tokens[start:end], end - scored_until
            scored_until = end

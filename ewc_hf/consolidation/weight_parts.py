"""A model's tensors in parts: by kind of layer, and by depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_MOST_DEPTHS = 12
"""Bars that a picture has room for: of more layers, neighbours are taken together."""


def kind_of(name: str) -> str:
    """Return the kind of layer that a tensor belongs to: its module's name, with `*` in place of numbers."""
    return ".".join("*" if part.isdigit() else part for part in _module(name))


def depths_of(names: Sequence[str]) -> Callable[[str], str]:
    """Return what tells the layer that a tensor lies in, or its module outside of them; neighbours of many layers."""
    numbers = [number for number in map(_layer, names) if number is not None]
    last = max(numbers, default=0)
    together = -(-(last + 1) // _MOST_DEPTHS)

    def depth_of(name: str) -> str:
        number = _layer(name)
        if number is None:
            return kind_of(name)
        first = number // together * together
        end = min(first + together - 1, last)
        return f"layer {first}" if first == end else f"layers {first} to {end}"

    return depth_of


def grouped(names: Sequence[str], part_of: Callable[[str], str]) -> dict[str, list[str]]:
    """Return the tensors of each part, in the model's order."""
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(part_of(name), []).append(name)
    return parts


def _module(name: str) -> list[str]:
    """Return the words of the name of a tensor's module."""
    words = name.split(".")
    return words[:-1] if len(words) > 1 else words


def _layer(name: str) -> int | None:
    """Return the number of the layer that a tensor lies in: the first number of its name."""
    return next((int(word) for word in name.split(".") if word.isdigit()), None)

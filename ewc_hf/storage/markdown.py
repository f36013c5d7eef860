"""Tables in Markdown and HTML, and what shows itself as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from html import escape


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table of these cells, the first row as its head, with columns padded to equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows)


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """Return the same as a table for notebooks, which bring their own style."""
    head, *body = (
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for row, tag in ((row, "th" if number == 0 else "td") for number, row in enumerate(rows))
    )
    return f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"


class Tabular(ABC):
    """What shows itself as a table: in a notebook, and as text."""

    def summary(self) -> str:
        """Return the table in Markdown."""
        return markdown_table(self._rows())

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return f"<p>{escape(repr(self))}</p>{html_table(self._rows())}"

    @abstractmethod
    def _rows(self) -> list[list[str]]:
        """Return the cells, the first row as the table's head."""

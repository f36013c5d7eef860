"""What a tuned model no longer predicts: a text whose tokens are coloured by the rise of their loss."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..evaluation import TokenLoss, most_risen
from ..storage import html_page, markdown_table

_STYLE = """
main { max-width: 46rem; }
p { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.7; }
"""
_LEGEND = (
    "Orange: predicted worse than before, blue: better; the stronger, the more nats. A pointer on a token tells both."
)
_FULL = 3.0
"""Nats at which the colour is at its strongest."""


Losses = tuple[Sequence[TokenLoss], Sequence[TokenLoss]]
"""Of a document's tokens, by the old model and by the new one."""


def risen_table(documents: Sequence[Losses], number: int) -> str:
    """Return a table of the tokens whose loss rose most, the worst first, in Markdown."""
    rows = [["after", "token", "nats before", "after", "rise"]]
    for each in most_risen(documents, number):
        context, token = (repr(text)[1:-1].replace("|", "\\|") for text in (each.context, each.text))
        rise = f"{each.after - each.before:+.2f}"
        rows.append([f"…{context}", f"`{token}`", f"{each.before:.2f}", f"{each.after:.2f}", rise])
    return markdown_table(rows)


def coloured_page(title: str, documents: Sequence[Losses]) -> str:
    """Return a page that stands alone, with each document's tokens coloured by the rise of their loss.

    Args:
        title: of the page.
        documents: the losses of each one's tokens.
    """
    texts = (
        "".join(_coloured(old, new) for old, new in zip(before, after, strict=True)) for before, after in documents
    )
    paragraphs = [f'<p class="note">{_LEGEND}</p>', *(f"<p>{text}</p>" for text in texts)]
    return html_page(title, "\n".join(paragraphs), _STYLE)


def _coloured(before: TokenLoss, after: TokenLoss) -> str:
    rise = after.nll - before.nll
    strength = min(abs(rise) / _FULL, 1) * 0.75
    colour = f"rgba({'213, 94, 0' if rise > 0 else '0, 114, 178'}, {strength:.2f})"
    told = f"{before.nll:.2f} nats before, {after.nll:.2f} after"
    return f'<span style="background: {colour}" title="{told}">{escape(after.text)}</span>'

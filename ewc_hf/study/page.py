"""The report as one page that stands alone: pictures and tables, and what each model writes after the same prompts."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from html import escape
from operator import attrgetter

from ..storage import html_page
from .contents import Section, listed, sections, share
from .records import MissingRun, RunRecord, TextNames, group_by

_STYLE = """
main { max-width: 88rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.75rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; margin: 0 0 1rem; width: fit-content;
  max-width: 100%; }
.note, .prompt, img { max-width: 60rem; }
img { display: block; width: 100%; min-width: 38rem; height: auto; background: #ffffff; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.7rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { background: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal; min-width: 5.5rem; }
tr:last-child td { border-bottom: 0; }
.prompt { border: 1px solid var(--line); border-radius: 6px; margin: 0 0 1rem; padding: 0.8rem 1rem; }
.prompt > p { margin: 0 0 0.6rem; padding-left: 0.7rem; border-left: 3px solid var(--dim); }
.prompt > p, dd { white-space: pre-wrap; overflow-wrap: anywhere; }
dl { margin: 0; }
dt { color: var(--dim); font-size: 0.8rem; font-weight: 600; margin-top: 0.6rem; }
dd { margin: 0; }
"""


def html_report(
    records: Sequence[RunRecord],
    names: TextNames,
    title: str,
    missing: Sequence[MissingRun],
    pictures: Sequence[bytes],
) -> str:
    """The report as HTML that needs no other file: what `markdown_report` says, pictures, and continuations.

    Args:
        records: of the runs, as `with_forgetting` fills them in.
        names: what the page calls the two texts.
        title: of the page.
        missing: runs that are not finished, which it says first.
        pictures: PNGs.
    """
    parts = []
    if missing:
        finished = escape(share(records, missing).capitalize())
        parts.append(f"<p><strong>{finished}.</strong> Missing: {escape(listed(missing))}.</p>")
    parts += [_picture(png, names) for png in pictures]
    parts += [_section(section) for section in sections(records, names)]
    parts += [_continuations(records, kind, name) for kind, name in dataclasses.asdict(names).items()]
    return html_page(title, "\n".join(part for part in parts if part), _STYLE)


def _picture(png: bytes, names: TextNames) -> str:
    alt = escape(f"Perplexity on {names.retention} over perplexity on {names.task}, a curve a method")
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<div class="wide"><img alt="{alt}" src="{source}"></div>'


def _section(section: Section) -> str:
    head, *rows = section.table
    table = [_row("th", head), *(_row("td", row) for row in rows)]
    return "\n".join(
        (
            f"<h2>{escape(section.heading)}</h2>",
            '<div class="wide"><table>',
            *table,
            "</table></div>",
            f'<p class="note">{escape(section.note)}</p>',
        )
    )


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _continuations(records: Sequence[RunRecord], kind: str, name: str) -> str:
    """A block a prompt of one kind of text, with what each setting's first run writes after it."""
    first = [runs[0] for runs in group_by(records, attrgetter("name")).values()]
    written = [(run.name, prompt, text) for run in first for of, prompt, text in run.continuations if of == kind]
    blocks = [
        f'<div class="prompt"><p>{escape(prompt)}</p><dl>'
        + "".join(f"<dt>{escape(model)}</dt><dd>{escape(text)}</dd>" for model, _, text in of_prompt)
        + "</dl></div>"
        for prompt, of_prompt in group_by(written, lambda row: row[1]).items()
    ]
    return "\n".join([f"<h2>continuations of {escape(name)}</h2>", *blocks]) if blocks else ""

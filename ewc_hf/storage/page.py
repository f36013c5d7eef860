"""A page of HTML that stands alone: what all pages of the package share."""

from __future__ import annotations

from html import escape
from string import Template

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1d1d1f; --paper: #ffffff; --soft: #f3f4f6; --line: #d8dade; --dim: #5f6368; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e8; --paper: #16181b; --soft: #212429; --line: #3a3e45; --dim: #9aa0a8; }
}
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; -webkit-text-size-adjust: 100%; }
main { margin: 0 auto; padding: 1.25rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
.note { color: var(--dim); font-size: 0.85rem; }
$style
</style>
</head>
<body>
<main>
<h1>$title</h1>
$body
</main>
</body>
</html>
""")


def html_page(title: str, body: str, style: str) -> str:
    """Return a page in light and dark, for a phone too.

    Args:
        title: as text.
        body: what follows the title, as HTML.
        style: more CSS; `--ink`, `--paper`, `--soft`, `--line` and `--dim` are its colours.
    """
    return _PAGE.substitute(title=escape(title), body=body, style=style.strip())

"""The report of a study: run records as JSON, as Markdown tables, as a picture, and as a page that stands alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..storage import markdown_table, write_files
from .contents import listed, sections, share
from .curves import INCREASES, removed_at
from .page import html_report
from .picture import draw_pictures
from .records import MissingRun, RunRecord, TextNames, with_forgetting

_TITLE = "Fine-tuning without forgetting"


def study_title(lora_rank: int | None = None) -> str:
    """Return what the report of a study is called."""
    return _TITLE + (f", by LoRA of rank {lora_rank}" if lora_rank is not None else "")


def markdown_report(
    records: Iterable[RunRecord], names: TextNames, title: str = _TITLE, missing: Sequence[MissingRun] = ()
) -> str:
    """The tables of the report in Markdown: settings, interpolated models if there are any, and `removed_at`.

    Args:
        records: of the runs.
        names: what the tables call the two texts.
        title: of the report.
        missing: runs that are not finished, which it says first.

    Raises:
        ValueError: As `removed_at`.
    """
    records = with_forgetting(records)
    paragraphs = [f"# {title}"]
    if missing:
        paragraphs.append(f"**{share(records, missing).capitalize()}.** Missing: {listed(missing)}.")
    for section in sections(records, names):
        paragraphs += [f"## {section.heading}", markdown_table(section.table), section.note]
    return "\n\n".join(paragraphs) + "\n"


def write_report(
    records: Iterable[RunRecord],
    output_dir: str | Path,
    names: TextNames,
    title: str = _TITLE,
    missing: Sequence[MissingRun] = (),
) -> tuple[Path, Path, Path, Path]:
    """Writes `report.json`, `.md`, `.png` and `.html`, each by way of a temporary name; makes the folder.

    Curves that find no room in the picture are in `report_more.png`, which is there only then.

    Args:
        records: of the runs.
        output_dir: the folder.
        names: what tables and pictures call the two texts.
        title: of tables and pictures.
        missing: runs that are not finished, which all four say.

    Returns:
        The four paths, in this order.

    Raises:
        ValueError: As `removed_at`; then nothing is written.
    """
    records, folder = with_forgetting(records), Path(output_dir)
    rows = [row for increase in INCREASES for row in removed_at(records, increase)]
    state = {
        "names": _in_one_line(names),
        "missing": _line_by_line(missing),
        "runs": _line_by_line(records),
        "removed_at": _line_by_line(rows),
    }
    lines = ",\n".join(f'  "{key}": {value}' for key, value in state.items())
    pictures = draw_pictures(records, names, f"{title} ({share(records, missing)})" if missing else title)
    contents = {
        "report.json": f"{{\n{lines}\n}}\n".encode(),
        "report.md": markdown_report(records, names, title, missing).encode(),
        "report.png": pictures[0],
        "report.html": html_report(records, names, title, missing, pictures).encode(),
    }
    write_files(folder, {**contents, **dict(zip(["report_more.png"], pictures[1:], strict=False))})
    if len(pictures) == 1:
        (folder / "report_more.png").unlink(missing_ok=True)
    return folder / "report.json", folder / "report.md", folder / "report.png", folder / "report.html"


def read_report(path: str | Path) -> tuple[list[RunRecord], TextNames]:
    """The records of a `report.json`, and the names of its texts.

    Raises:
        ValueError: If the file is not such a report, or is one of an earlier version.
    """
    try:
        state = json.loads(Path(path).read_bytes())
        return [RunRecord(**run) for run in state["runs"]], TextNames(**state["names"])
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"expected {path} to be a report.json that this version wrote, got {error!r}: run the study again, in "
            "another output_dir"
        ) from error


def _line_by_line(rows: Iterable[Any]) -> str:
    """JSON of dataclasses, one a line, since documents' scores are many numbers."""
    lines = ",\n".join(f"    {_in_one_line(row)}" for row in rows)
    return f"[\n{lines}\n  ]" if lines else "[]"


def _in_one_line(row: Any) -> str:
    return json.dumps(dataclasses.asdict(row))

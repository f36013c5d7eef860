"""The report of a study: run records as JSON, as Markdown tables and as a picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from ..storage import markdown_table, replaced
from .curves import INCREASES, method_title, removed_at
from .picture import draw_picture
from .records import (
    MissingRun,
    RunRecord,
    TextNames,
    forgetting_interval,
    group_by,
    mean_and_interval,
    pretrained_of,
    with_forgetting,
)

_TITLE = "Fine-tuning without forgetting"


def markdown_report(
    records: Iterable[RunRecord], names: TextNames, title: str = _TITLE, missing: Sequence[MissingRun] = ()
) -> str:
    """Two Markdown tables: every setting's means over its seeds, and `removed_at` at each of `INCREASES`.

    Args:
        records: of the runs.
        names: what the tables call the two texts.
        title: of the report.
        missing: runs that are not finished, which it says first.

    Raises:
        ValueError: As `removed_at`.
    """
    records = with_forgetting(records)
    seeds = "With two seeds or more: mean ± half-width of its 95% t-interval over seeds."
    return f"""# {title}
{_missing_paragraph(records, missing)}
{markdown_table(_settings_table(records, names))}

NLL and forgetting in nats per token; forgetting = rise of the NLL on {names.retention} over the pretrained model;
forgetting removed = 1 - forgetting / forgetting of plain fine-tuning with the same seed. {seeds}
Over documents: 95% bootstrap interval of the mean forgetting, the documents of {names.retention} being drawn.

## removed_at

{markdown_table(_crossings_table(records))}

Forgetting removed where a method's curve over its strengths reaches an NLL on {names.task} so much above plain
fine-tuning's, and the strength that gets there (geometric mean over seeds); `-` where a seed's curve does not get
there between two of its strengths. One strength makes no curve: nothing is read on a straight line from plain
fine-tuning. {seeds}
"""


def write_report(
    records: Iterable[RunRecord],
    output_dir: str | Path,
    names: TextNames,
    title: str = _TITLE,
    missing: Sequence[MissingRun] = (),
) -> tuple[Path, Path, Path]:
    """Writes `report.json`, `report.md` and `report.png`, each by way of a temporary name; makes the folder.

    Args:
        records: of the runs.
        output_dir: the folder.
        names: what tables and picture call the two texts.
        title: of tables and picture.
        missing: runs that are not finished, which all three say.

    Returns:
        The three paths, in this order.

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
    contents = {
        "report.json": f"{{\n{lines}\n}}\n".encode(),
        "report.md": markdown_report(records, names, title, missing).encode(),
        "report.png": draw_picture(records, names, f"{title} ({_share(records, missing)})" if missing else title),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        with replaced(folder / name) as temporary:
            temporary.write_bytes(content)
    return folder / "report.json", folder / "report.md", folder / "report.png"


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


def _share(records: Sequence[RunRecord], missing: Sequence[MissingRun]) -> str:
    return f"unfinished: {len(records)} of {len(records) + len(missing)} runs"


def _missing_paragraph(records: Sequence[RunRecord], missing: Sequence[MissingRun]) -> str:
    if not missing:
        return ""
    seeds = {name: [run.seed for run in runs] for name, runs in group_by(missing, attrgetter("name")).items()}
    listed = "; ".join(f"{name}, seed {', '.join(map(str, of_name))}" for name, of_name in seeds.items())
    return f"\n**{_share(records, missing).capitalize()}.** Missing: {listed}.\n"


def _settings_table(records: Sequence[RunRecord], names: TextNames) -> list[list[str]]:
    columns = (  # heading, attribute, factor to the heading's unit, decimals
        (f"NLL on {names.task}", "task_nll", 1, 3),
        (f"perplexity on {names.task}", "task_perplexity", 1, 2),
        (f"NLL on {names.retention}", "retention_nll", 1, 3),
        (f"perplexity on {names.retention}", "retention_perplexity", 1, 2),
        ("forgetting (nats)", "forgetting", 1, 3),
        ("forgetting removed (%)", "forgetting_removed", 100, 1),
        ("seconds", "seconds", 1, 1),
        ("peak memory (MiB)", "peak_memory_bytes", 2**-20, 0),
    )
    pretrained = pretrained_of(records)
    table = [["name", "method", "seeds", *(column[0] for column in columns), "forgetting over documents"]]
    for name, runs in group_by(records, attrgetter("name")).items():
        row = [name, next(iter(runs[0].curves), method_title(runs[0].method)), str(len(runs))]
        for _, attribute, factor, decimals in columns:
            values = [*map(attrgetter(attribute), runs)]
            row.append("-" if None in values else _cell(*mean_and_interval(np.multiply(values, factor)), decimals))
        interval = forgetting_interval(runs, pretrained)
        table.append([*row, "-" if interval is None else "{:.3f} to {:.3f}".format(*interval)])
    return table


def _crossings_table(records: Sequence[RunRecord]) -> list[list[str]]:
    headings = [text for x in INCREASES for text in (f"removed at +{x:.0%} (%)", f"strength at +{x:.0%}")]
    table = [["method", *headings]]
    for curve in zip(*(removed_at(records, increase) for increase in INCREASES), strict=True):
        row = [curve[0].curve]
        for at in curve:
            half_width = None if at.interval is None else 100 * at.interval
            row.append("-" if at.forgetting_removed is None else _cell(100 * at.forgetting_removed, half_width, 1))
            row.append("-" if at.strength is None else f"{float(f'{at.strength:.3g}'):g}")
        table.append(row)
    return table


def _cell(mean: float, half_width: float | None, decimals: int) -> str:
    return f"{mean:.{decimals}f}" + ("" if half_width is None else f" ± {half_width:.{decimals}f}")


def _line_by_line(rows: Iterable[Any]) -> str:
    """JSON of dataclasses, one a line, since documents' scores are many numbers."""
    lines = ",\n".join(f"    {_in_one_line(row)}" for row in rows)
    return f"[\n{lines}\n  ]" if lines else "[]"


def _in_one_line(row: Any) -> str:
    return json.dumps(dataclasses.asdict(row))

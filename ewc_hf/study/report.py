"""The report of a study: run records as JSON, as Markdown tables and as a picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

import numpy as np

from ..storage import markdown_table, replaced
from .picture import draw_picture
from .records import INCREASES, RunRecord, display_name, group_by, mean_and_interval, removed_at, with_forgetting

_TITLE = "Fine-tuning without forgetting"


def markdown_report(records: Iterable[RunRecord], title: str = _TITLE) -> str:
    """Two Markdown tables: every setting's means over its seeds, and `removed_at` at each of `INCREASES`.

    Raises:
        ValueError: As `removed_at`.
    """
    records = with_forgetting(records)
    columns = (  # heading, attribute, factor to the heading's unit, decimals
        ("dialog NLL", "dialog_nll", 1, 3),
        ("dialog perplexity", "dialog_perplexity", 1, 2),
        ("book NLL", "book_nll", 1, 3),
        ("book perplexity", "book_perplexity", 1, 2),
        ("forgetting (nats)", "forgetting", 1, 3),
        ("forgetting removed (%)", "forgetting_removed", 100, 1),
        ("seconds", "seconds", 1, 1),
        ("peak memory (MiB)", "peak_memory_bytes", 2**-20, 0),
    )
    settings = [["name", "method", "coupling", "lambda", "seeds", *(column[0] for column in columns)]]
    by_setting = group_by(records, attrgetter("name", "method", "coupling", "ewc_lambda"))
    for (name, method, coupling, strength), runs in by_setting.items():
        row = [name, display_name(method), coupling or "-", f"{strength:g}", str(len(runs))]
        for _, attribute, factor, decimals in columns:
            values = [*map(attrgetter(attribute), runs)]
            row.append("-" if None in values else _cell(*mean_and_interval(np.multiply(values, factor)), decimals))
        settings.append(row)
    crossings = [["method", "coupling"]]
    crossings[0] += [text for x in INCREASES for text in (f"removed at +{x:.0%} (%)", f"lambda at +{x:.0%}")]
    for curve in zip(*(removed_at(records, increase) for increase in INCREASES), strict=True):
        row = [display_name(curve[0].method), curve[0].coupling or "-"]
        for at in curve:
            half_width = None if at.interval is None else 100 * at.interval
            row.append("-" if at.forgetting_removed is None else _cell(100 * at.forgetting_removed, half_width, 1))
            row.append("-" if at.ewc_lambda is None else f"{float(f'{at.ewc_lambda:.3g}'):g}")
        crossings.append(row)
    interval = "With two seeds or more: mean ± half-width of its 95% t-interval over seeds."
    return f"""# {title}

{markdown_table(settings)}

NLL and forgetting in nats per token; forgetting = rise of the book NLL over the pretrained model; forgetting removed
= 1 - forgetting / forgetting of plain fine-tuning with the same seed. {interval}

## removed_at

{markdown_table(crossings)}

Forgetting removed where a method's curve over lambda reaches a dialog NLL so much above plain fine-tuning's, and the
lambda that gets there (geometric mean over seeds); `-` where a seed's curve does not. {interval}
"""


def write_report(records: Iterable[RunRecord], output_dir: str | Path, title: str = _TITLE) -> tuple[Path, Path, Path]:
    """Writes `report.json`, `report.md` and `report.png`, each by way of a temporary name; makes the folder.

    Returns:
        The three paths, in this order.

    Raises:
        ValueError: As `removed_at`; then nothing is written.
    """
    records, folder = with_forgetting(records), Path(output_dir)
    rows = [row for increase in INCREASES for row in removed_at(records, increase)]
    state = {"runs": [dataclasses.asdict(run) for run in records], "removed_at": [dataclasses.asdict(r) for r in rows]}
    contents = {
        "report.json": (json.dumps(state, indent=2) + "\n").encode(),
        "report.md": markdown_report(records, title).encode(),
        "report.png": draw_picture(records, title),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        with replaced(folder / name) as temporary:
            temporary.write_bytes(content)
    return folder / "report.json", folder / "report.md", folder / "report.png"


def read_records(path: str | Path) -> list[RunRecord]:
    """The records of a `report.json`.

    Raises:
        ValueError: If the file is not such a report.
    """
    try:
        return [RunRecord(**run) for run in json.loads(Path(path).read_bytes())["runs"]]
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"expected {path} to be a report.json of write_report, got {error!r}: write it again"
        ) from error


def _cell(mean: float, half_width: float | None, decimals: int) -> str:
    return f"{mean:.{decimals}f}" + ("" if half_width is None else f" ± {half_width:.{decimals}f}")

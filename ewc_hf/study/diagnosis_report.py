"""The page of a diagnosis: tables, and bars of what each part does."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from ..storage import GREY, PALETTE, json_bytes, markdown_table, panels, png, write_files
from ..version import versions
from .diagnosis import DiagnosedPart, Diagnosis

_BACK, _ALONE, *_ = PALETTE
_NOTE = (
    "Put back: by how much the tuned model's forgetting falls where this part has its old weights again. Alone: the "
    "forgetting of the old model with nothing but this part as it was tuned. Both in nats per token of the retention "
    "text. Parts act on each other, so that neither sums up to the whole. Moved: the norm of the change over that of "
    "the old weights. What gives back most is what to hold harder, or to freeze."
)
_PREDICTED = (
    "Predicted: 1/2 sum Omega (w - w*)^2, by the importance; it is right for small changes within each weight alone, "
    "and too low where training goes far or along directions of many weights."
)


def write_diagnosis(diagnosis: Diagnosis, folder: str | os.PathLike[str]) -> str:
    """Write `diagnosis.json`, `diagnosis.md` and `diagnosis.png`, each by way of a temporary name.

    Args:
        diagnosis: what was measured.
        folder: made where it is missing.

    Returns:
        The page, in Markdown.
    """
    predicted = diagnosis.predicted
    whole = f"Forgetting {diagnosis.forgetting:.4f} nats per token"
    whole += f"; predicted {predicted:.4f}." if predicted is not None else "."
    sections = ["# Where the forgetting sits", f"`{diagnosis.tuned}`, tuned from `{diagnosis.base}`. {whole}"]
    for title, parts in (("By kind of layer", diagnosis.kinds), ("By depth", diagnosis.depths)):
        sections += [f"## {title}", markdown_table(_table(parts, diagnosis))]
    sections += [_NOTE, *([] if predicted is None else [_PREDICTED])]
    page = "\n\n".join(sections) + "\n"
    record = {**dataclasses.asdict(diagnosis), "versions": versions()}
    write_files(
        folder,
        {"diagnosis.md": page.encode(), "diagnosis.png": _picture(diagnosis), "diagnosis.json": json_bytes(record)},
    )
    return page


def _table(parts: Sequence[DiagnosedPart], diagnosis: Diagnosis) -> list[list[str]]:
    knows = diagnosis.predicted is not None
    rows = [["part", "weights", "moved", *(["predicted"] if knows else []), "alone", "put back", "share of the whole"]]
    for part in parts:
        rows.append(
            [
                part.name, f"{part.num_weights:,}", f"{part.moved:.1%}",
                *([f"{part.predicted:.4f}"] if knows else []),
                f"{part.alone:.4f}", f"{part.put_back:.4f}", _share(part.put_back, diagnosis),
            ]
        )  # fmt: skip
    sums = [sum(part.alone for part in parts), sum(part.put_back for part in parts)]
    sum_predicted = [f"{sum(part.predicted or 0 for part in parts):.4f}"] if knows else []
    num_weights = f"{sum(part.num_weights for part in parts):,}"
    cells = [f"{number:.4f}" for number in sums]
    return [*rows, ["sum", num_weights, "", *sum_predicted, *cells, _share(sums[1], diagnosis)]]


def _share(nats: float, diagnosis: Diagnosis) -> str:
    return f"{nats / diagnosis.forgetting:.0%}" if diagnosis.forgetting > 0 else "-"


def _picture(diagnosis: Diagnosis) -> bytes:
    longest = max(len(diagnosis.kinds), len(diagnosis.depths))
    title = f"Where {diagnosis.forgetting:.3f} nats per token of forgetting sit"
    figure, (left, right) = panels(title, 2, 1.0 + 0.36 * longest)
    _bars(left, "by kind of layer", diagnosis.kinds)
    _bars(right, "by depth", diagnosis.depths)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return png(figure)


def _bars(axes: Axes, title: str, parts: Sequence[DiagnosedPart]) -> None:
    places = np.arange(len(parts))
    axes.barh(places - 0.2, [part.put_back for part in parts], 0.38, color=_BACK, label="less with it put back")
    axes.barh(places + 0.2, [part.alone for part in parts], 0.38, color=_ALONE, label="with it alone")
    if any(part.predicted is not None for part in parts):
        predicted = [part.predicted or 0.0 for part in parts]
        axes.plot(predicted, places, "|", c=GREY, ms=13, mew=2, label="predicted")
    axes.axvline(0, c=GREY, lw=0.8)
    axes.set_yticks(places, [part.name for part in parts], size=9)
    axes.invert_yaxis()
    axes.set_title(title, loc="left", size=10)
    axes.set_xlabel("forgetting (nats per token)")

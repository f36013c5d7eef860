"""The report of what stabilization is for: three pictures and a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..storage import calm, colour, json_bytes, markdown_table, png, write_files
from .paths import PathEnd
from .spread import BINS, Spread

_EXPLODED = 1e3
"""Where the picture draws distances that are larger or infinite."""
Paths = Mapping[str, Mapping[str, Sequence[PathEnd]]]
"""The ends by optimizer and form."""


def write_stabilization(folder: Path, spreads: Mapping[str, Sequence[Spread]], paths: Paths) -> str:
    """Write `spread.png`, `paths.png`, `norm.png`, `stabilization.md` and `stabilization.json`.

    Args:
        folder: made where it is missing.
        spreads: of each network's importance, by its name.
        paths: where a second task led, by optimizer and form.

    Returns:
        The tables, in Markdown.
    """
    text = _text(spreads, paths)
    ends = {
        optimizer: {form: [asdict(end) for end in of_form] for form, of_form in forms.items()}
        for optimizer, forms in paths.items()
    }
    record = {"spread": {of: [*map(asdict, kinds)] for of, kinds in spreads.items()}, "paths": ends}
    contents = {
        "spread.png": _draw_spreads(spreads),
        "paths.png": _draw_paths(paths),
        "norm.png": _draw_norms(paths),
        "stabilization.md": text.encode(),
        "stabilization.json": json_bytes(record),
    }
    write_files(folder, contents)
    return text


def _text(spreads: Mapping[str, Sequence[Spread]], paths: Paths) -> str:
    table = [["network", "layers", "weights", "mean importance", "largest / mean", "zeros"]]
    for network, kinds in spreads.items():
        for one in kinds:
            ratio = f"{one.largest / one.mean:,.0f}" if one.mean > 0 else "-"
            table.append([network, one.kind, f"{one.num_weights:,}", f"{one.mean:.2g}", ratio, f"{one.zeros:.1%}"])
    ends = [["optimizer", "penalty", "explodes at lambda", "best lambda", "accuracy old", "accuracy new"]]
    for optimizer, forms in paths.items():
        for form, of_form in forms.items():
            exploded = [end.ewc_lambda for end in of_form if not end.farthest < _EXPLODED]
            best = max(of_form, key=lambda end: end.old_accuracy + end.new_accuracy)
            cells = [f"{exploded[0]:g}" if exploded else "never", f"{best.ewc_lambda:g}"]
            ends.append([optimizer, form, *cells, f"{best.old_accuracy:.3f}", f"{best.new_accuracy:.3f}"])
    return f"""# What stabilization is for

{markdown_table(table)}

Where the largest importance is many times the mean, a lambda that holds most weights overshoots at some.

{markdown_table(ends)}

The first and a second task, over lambda. Explodes: the root mean square of `w - w*` passes {_EXPLODED:g} or is no
number. Best: by the mean accuracy on both tasks.
"""


def _draw_spreads(spreads: Mapping[str, Sequence[Spread]]) -> bytes:
    figure = Figure(figsize=(4.6 * len(spreads), 3.8), dpi=150, layout="constrained")
    figure.suptitle("Importance of single weights over the mean of their layers", x=0.01, ha="left", weight="bold")
    for number, (network, kinds) in enumerate(spreads.items()):
        axes = figure.add_subplot(1, len(spreads), number + 1)
        for position, one in enumerate(kinds):
            axes.stairs(np.multiply(100, one.shares), BINS, color=colour(position), lw=1.5, label=one.kind)
            if one.mean > 0:
                axes.axvline(np.log10(one.largest / one.mean), color=colour(position), lw=0.8, ls=":")
        axes.set_title(f"{network}; dotted: the largest", loc="left", size=10)
        axes.set_xlabel("importance / mean, powers of ten")
        axes.set_ylabel("weights (%)")
        axes.legend(frameon=False, fontsize=8)
        calm(axes)
    return png(figure)


def _draw_paths(paths: Paths) -> bytes:
    figure = Figure(figsize=(4.2 * len(paths), 6.4), dpi=150, layout="constrained")
    figure.suptitle("A second task, over lambda", x=0.01, ha="left", weight="bold")
    rows: tuple[tuple[str, Callable[[PathEnd], float]], ...] = (
        ("farthest from the anchor (RMS)", lambda end: min(end.farthest, _EXPLODED)),
        ("mean accuracy on both tasks", lambda end: (end.old_accuracy + end.new_accuracy) / 2),
    )
    for row, (label, value) in enumerate(rows):
        for column, (optimizer, forms) in enumerate(paths.items()):
            axes = figure.add_subplot(2, len(paths), row * len(paths) + column + 1)
            _draw_over_lambda(axes, forms, value)
            if row == 0:
                axes.set_yscale("log")
                axes.set_title(optimizer, loc="left", size=10)
            else:
                axes.set_xlabel("lambda")
            if column == 0:
                axes.set_ylabel(label)
    return png(figure)


def _draw_norms(paths: Paths) -> bytes:
    figure = Figure(figsize=(4.2 * len(paths), 3.4), dpi=150, layout="constrained")
    title = "Share of the gradient's squared norm in saturated weights (dashed: their share of all weights)"
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    for column, (optimizer, forms) in enumerate(paths.items()):
        axes = figure.add_subplot(1, len(paths), column + 1)
        _draw_over_lambda(axes, forms, lambda end: 100 * end.norm_share)
        ends = next(iter(forms.values()))
        axes.plot([end.ewc_lambda for end in ends], [100 * end.saturated for end in ends], c="#666666", ls="--", lw=1)
        axes.set_title(optimizer, loc="left", size=10)
        axes.set_xlabel("lambda")
        axes.set_ylabel("%")
    return png(figure)


def _draw_over_lambda(axes: Axes, forms: Mapping[str, Sequence[PathEnd]], value: Callable[[PathEnd], float]) -> None:
    for position, (form, ends) in enumerate(forms.items()):
        x = [end.ewc_lambda for end in ends]
        axes.plot(x, [value(end) for end in ends], c=colour(position), marker="o", ms=3.5, lw=1.6, label=form)
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8)
    calm(axes)

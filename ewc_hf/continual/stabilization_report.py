"""The report of what stabilization is for: three pictures and a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from ..storage import colour, json_bytes, markdown_table, panels, png, write_files
from .paths import PathEnd
from .spread import BINS, Spread

_EXPLODED = 1e3
"""Where the picture draws distances that are larger, infinite or no number."""
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
    figure, drawn = panels("Importance of single weights over the mean of their layers", len(spreads), 3.3)
    for axes, (network, kinds) in zip(drawn, spreads.items(), strict=True):
        for position, one in enumerate(kinds):
            axes.stairs(np.multiply(100, one.shares), BINS, color=colour(position), lw=1.5, label=one.kind)
            if one.mean > 0:
                axes.axvline(np.log10(one.largest / one.mean), color=colour(position), lw=0.8, ls=":")
        axes.set_title(f"{network}; dotted: the largest", loc="left", size=10)
        axes.set_xlabel("importance / mean, powers of ten")
        axes.set_ylabel("weights (%)")
        axes.legend(frameon=False, fontsize=8)
    return png(figure)


def _draw_paths(paths: Paths) -> bytes:
    figure, drawn = panels("A second task, over lambda", 2 * len(paths), 2.9)
    columns: tuple[tuple[str, Callable[[PathEnd], float]], ...] = (
        ("farthest from w* (RMS)", lambda end: end.farthest if end.farthest < _EXPLODED else _EXPLODED),
        ("accuracy on both tasks", lambda end: (end.old_accuracy + end.new_accuracy) / 2),
    )
    for number, axes in enumerate(drawn):
        optimizer, (label, value) = list(paths)[number // 2], columns[number % 2]
        _draw_over_lambda(axes, optimizer, paths[optimizer], value)
        axes.set_ylabel(label)
        if number % 2 == 0:
            axes.set_yscale("log")
    return png(figure)


def _draw_norms(paths: Paths) -> bytes:
    title = "The gradient's squared norm: how much saturated weights take"
    figure, drawn = panels(title, len(paths), 2.9)
    for axes, (optimizer, forms) in zip(drawn, paths.items(), strict=True):
        ends = next(iter(forms.values()))
        weights = [100 * end.saturated for end in ends]
        axes.plot([end.ewc_lambda for end in ends], weights, c="#666666", ls="--", lw=1, label="of all weights")
        _draw_over_lambda(axes, optimizer, forms, lambda end: 100 * end.norm_share)
        axes.set_ylabel("share (%)")
    return png(figure)


def _draw_over_lambda(
    axes: Axes, optimizer: str, forms: Mapping[str, Sequence[PathEnd]], value: Callable[[PathEnd], float]
) -> None:
    for position, (form, ends) in enumerate(forms.items()):
        x = [end.ewc_lambda for end in ends]
        axes.plot(x, [value(end) for end in ends], c=colour(position), marker="o", ms=3.5, lw=1.6, label=form)
    axes.set_title(optimizer, loc="left", size=10)
    axes.set_xlabel("lambda")
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8)

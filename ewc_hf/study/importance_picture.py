"""Which weights are important: a heat map of layers and the kinds of their parts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ..consolidation import depths_of, grouped, importance_of, kind_of
from ..engines import Rows
from ..storage import png


def importance_picture(importance: Mapping[str, Rows], title: str) -> bytes:
    """Return a picture of the mean importance, a row for each layer and a column for each kind of its parts.

    What lies outside of the layers, such as embeddings, has rows of one column.

    Args:
        importance: Omega by parameter name, in memory or on disk.
        title: of the picture.
    """
    names = list(importance)
    depth_of = depths_of(names)
    cells = grouped(names, lambda name: f"{depth_of(name)}\n{_short(kind_of(name))}")
    means = {cell: importance_of(cell, [importance[name] for name in each]).mean for cell, each in cells.items()}
    rows, columns = (list(dict.fromkeys(cell.split("\n")[at] for cell in cells)) for at in (0, 1))
    image = np.full((len(rows), len(columns)), np.nan)
    for cell, mean in means.items():
        row, column = cell.split("\n")
        image[rows.index(row), columns.index(column)] = np.log10(mean) if mean > 0 else np.nan
    figure = Figure(figsize=(2.6 + 0.75 * len(columns), 2.1 + 0.34 * len(rows)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(image, aspect="auto", cmap="viridis")
    middle = np.nanmean([np.nanmin(image), np.nanmax(image)])
    for (row, column), value in np.ndenumerate(image):
        if not np.isnan(value):
            ink = "white" if value < middle else "black"
            axes.text(column, row, f"{10**value:.0e}", ha="center", va="center", size=7, color=ink)
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right", size=8)
    axes.set_yticks(range(len(rows)), rows, size=8)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left", size=10)
    figure.colorbar(shown, label="mean importance, powers of ten", shrink=0.8)
    return png(figure)


def _short(kind: str) -> str:
    """Return a kind of layer without what all layers share: "attn.c_proj" of "transformer.h.*.attn.c_proj"."""
    return kind.rpartition("*.")[2] if "*" in kind else kind.rpartition(".")[2]

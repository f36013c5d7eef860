"""What the package's pictures share: colours, a calm grid, and a picture as bytes."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Six of Okabe's and Ito's, colour-blind safe."""
GREY = "#666666"


def colour(number: int) -> str:
    """Return the colour of a curve; from the seventh on they come again."""
    return PALETTE[number % len(PALETTE)]


def calm(axes: Axes) -> None:
    """Put a pale grid behind the curves, and leave the frame open."""
    axes.grid(c="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def panels(title: str, number: int, height: float, note: str = "") -> tuple[Figure, list[Axes]]:
    """Return a picture and its panels, two in a row, so that they are legible where a page is narrow.

    Args:
        title: of the picture.
        number: of panels.
        height: of each, in inches.
        note: what is said below the title.
    """
    from matplotlib.figure import Figure

    columns = min(2, number)
    rows = math.ceil(number / columns)
    figure = Figure(figsize=(4.8 * columns, 0.7 + height * rows), dpi=150, layout="constrained")
    figure.suptitle(f"{title}\n" if note else title, x=0.01, ha="left", weight="bold")
    figure.text(0.01, 1 - 0.33 / figure.get_figheight(), note, va="top", size=9, c=GREY)
    axes = [figure.add_subplot(rows, columns, position + 1) for position in range(number)]
    for one in axes:
        calm(one)
    return figure, axes


def png(figure: Figure) -> bytes:
    """Return a picture as a file."""
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()

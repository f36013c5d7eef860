"""What the package's pictures share: colours, a calm grid, and a picture as bytes."""

from __future__ import annotations

import io
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


def png(figure: Figure) -> bytes:
    """Return a picture as a file."""
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()

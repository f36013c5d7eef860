"""What Kutalev & Lapina 2021 (arXiv 2109.10021) report, for tables beside one's own, in lambda of eq. 1.

The authors' code adds `lambda Omega (w - w*)^2` without eq. 1's half where the penalty is plain, so that lambda here
is twice the one that they print; stabilized penalties have the half. Two rows of their table 2 are of other runs than
the files that they published (convolutions: Fisher and Synaptic Intelligence, stabilized); here are the files'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..importance import PruningScope
from ..storage import read_json
from ..study import Sweep, SweptPoint
from .runs import UNPROTECTED

_KEYS = {"fisher": "fisher", "mas": "mas", "synaptic": "si", "signal": "signal"}
_RUNS = 20


@dataclass(frozen=True)
class Published:
    """A row of the paper's tables 1 and 2.

    Attributes:
        ewc_lambda: the best.
        accuracy: mean over all tasks after the last one, and 20 runs.
        interval: half-width of its 95% t-interval.
        plateau: the least and the largest lambda whose mean lies within the interval.
    """

    ewc_lambda: float
    accuracy: float
    interval: float
    plateau: tuple[float, float]


PERMUTED = {
    "fisher:plain": Published(82, 0.9505, 0.0015, (52, 130)),
    "fisher:stabilized": Published(85, 0.9510, 0.0011, (72.5, 110)),
    "mas:plain": Published(9, 0.9553, 0.0008, (7, 9.5)),
    "mas:stabilized": Published(8.5, 0.9554, 0.0009, (7.5, 9.5)),
    "synaptic:plain": Published(0.5, 0.9432, 0.0014, (0.5, 0.5)),
    "synaptic:stabilized": Published(0.64, 0.9422, 0.0017, (0.4, 0.9)),
    "signal:plain": Published(0.2, 0.9291, 0.0019, (0.17, 0.27)),
    UNPROTECTED: Published(0, 0.4754, 0.0083, (0, 0)),
}
"""Fully connected, ten tasks of permuted MNIST."""

ROTATED = {
    "fisher:plain": Published(1350, 0.5846, 0.0144, (1000, 2000)),
    "fisher:stabilized": Published(1300, 0.5816, 0.0161, (550, 2000)),
    "mas:plain": Published(600, 0.6012, 0.0143, (420, 900)),
    "mas:stabilized": Published(450, 0.5930, 0.0149, (240, 1600)),
    "synaptic:plain": Published(48, 0.5068, 0.0149, (15, 220)),
    "synaptic:stabilized": Published(140, 0.5017, 0.0188, (21, 400)),
    UNPROTECTED: Published(0, 0.3153, 0.0046, (0, 0)),
}
"""Convolutions, MNIST and Fashion-MNIST, and both turned."""

PRUNED = {
    PruningScope.NETWORK: {
        0.8: {
            "magnitude": (0.9594, 0.0027),
            "signal": (0.9551, 0.0027),
            "fisher": (0.7369, 0.0426),
            "mas": (0.6356, 0.0468),
            "synaptic": (0.4918, 0.0647),
        },
        0.9: {
            "magnitude": (0.8568, 0.0214),
            "signal": (0.8962, 0.0072),
            "fisher": (0.2882, 0.0500),
            "mas": (0.3141, 0.0378),
            "synaptic": (0.2221, 0.0344),
        },
    },
    PruningScope.LAYER: {
        0.8: {
            "magnitude": (0.9213, 0.0086),
            "signal": (0.8588, 0.0367),
            "fisher": (0.4040, 0.0751),
            "mas": (0.2395, 0.0628),
            "synaptic": (0.2323, 0.0330),
        },
        0.9: {
            "magnitude": (0.6771, 0.0390),
            "signal": (0.6250, 0.0624),
            "fisher": (0.2137, 0.0501),
            "mas": (0.1182, 0.0205),
            "synaptic": (0.1247, 0.0189),
        },
    },
}
"""Fully connected, MNIST alone: accuracy by the share of pruned weights, mean of 10 runs and its interval."""


def read_authors_curves(path: str, network: str) -> list[Sweep]:
    """Read the authors' whole curves, to be drawn beside one's own.

    Args:
        path: a JSON file, `{"curves": {"fc_fisher_stabilized": {"points": [...]}}}`, each point with `lambda_formula`,
            `mean` and `ci95`.
        network: "fc" or "conv".

    Raises:
        ValueError: the file is missing or of another form.
    """
    try:
        curves = read_json(Path(path))["curves"]
        found = [
            Sweep(method, form, _points(curves[key]["points"]), higher_is_better=True)
            for method, short in _KEYS.items()
            for form, suffix in (("plain", ""), ("stabilized", "_stabilized"))
            if (key := f"{network}_{short}{suffix}") in curves
        ]
        if not found:
            raise KeyError(f"curves of {network}_fisher, ..., among {sorted(curves)}")
        return found
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"expected the authors' curves in '{path}', got a file without {error}; leave it out"
        ) from error


def _points(points: Sequence[dict[str, float]]) -> list[SweptPoint]:
    found = [SweptPoint(point["lambda_formula"], point["mean"], point["ci95"], _RUNS) for point in points]
    return sorted(found, key=lambda point: point.ewc_lambda)

"""The methods by which importance is estimated, and the unit of each."""

from __future__ import annotations

from enum import Enum

from transformers.utils import ExplicitEnum

from ..consolidation import NATS_PER_TOKEN


class Method(ExplicitEnum, Enum):
    """What the importance of a weight is."""

    FISHER = "fisher"
    """Diagonal Fisher information."""

    MAS = "mas"
    """Memory Aware Synapses."""

    L2 = "l2"
    """1 for every weight, which needs no data."""

    SIGNAL = "signal"
    """Total absolute signal, which needs no gradient."""

    SYNAPTIC = "synaptic"
    """Synaptic Intelligence, which accrues while a model is trained."""

    @property
    def unit(self) -> str:
        """What `1/2 sum Omega (w - w*)^2` is measured in; each unit has a lambda of its own."""
        return _UNITS[self]

    @property
    def title(self) -> str:
        """What tables and pictures call the penalty with this importance."""
        return _TITLES[self]


_UNITS = {
    Method.FISHER: NATS_PER_TOKEN,
    Method.MAS: "squared output norm per token",
    Method.L2: "squared weight",
    Method.SIGNAL: "mean absolute signal",
    Method.SYNAPTIC: "synaptic intelligence",
}
_TITLES = {
    Method.FISHER: "EWC (Fisher)",
    Method.MAS: "EWC (MAS)",
    Method.L2: "L2 to start",
    Method.SIGNAL: "EWC (signal)",
    Method.SYNAPTIC: "EWC (SI)",
}

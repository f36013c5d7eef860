"""The methods by which importance is estimated, and the unit of each."""

from __future__ import annotations

from transformers.utils import ExplicitEnum

from ..consolidation import NATS_PER_TOKEN


class Method(ExplicitEnum):
    """What the importance of a weight is.

    Attributes:
        unit: what `1/2 sum Omega (w - w*)^2` is measured in; each unit has a lambda of its own.
        title: what tables and pictures call the penalty with this importance.
    """

    unit: str
    title: str

    def __new__(cls, value: str, unit: str, title: str) -> Method:  # noqa: D102
        member = str.__new__(cls, value)
        member._value_, member.unit, member.title = value, unit, title
        return member

    FISHER = "fisher", NATS_PER_TOKEN, "EWC (Fisher)"
    """Diagonal Fisher information."""

    MAS = "mas", "squared output norm per token", "EWC (MAS)"
    """Memory Aware Synapses."""

    SIGNAL = "signal", "mean absolute signal", "EWC (signal)"
    """Total absolute signal, which needs no gradient."""

    SYNAPTIC = "synaptic", "synaptic intelligence", "EWC (SI)"
    """Synaptic Intelligence, which accrues while a model is trained."""

    L2 = "l2", "squared weight", "L2 to start"
    """1 for every weight."""

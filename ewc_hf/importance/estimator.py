"""What every estimator can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from ..data import Batch
from ..per_example import GradientPath


class Estimator(Protocol):
    """Sums over batches, and in the end the importance.

    Attributes:
        accumulators: all that it has summed, by name.
        decisions: all else that it goes by, as JSON has it.
        paths: how each parameter's importance is computed.
    """

    accumulators: dict[str, Tensor]
    decisions: dict[str, Any]

    @property
    def paths(self) -> Mapping[str, GradientPath]:
        """How each parameter's importance is computed."""

    def add(self, batch: Batch) -> int:
        """Add a batch, the same in all processes, and return how many of its label tokens count."""

    def gather(self) -> None:
        """Add up what the processes have summed."""

    def importance(self, num_tokens: int) -> dict[str, Tensor]:
        """Return the importance by parameter name; nothing can be added after.

        Args:
            num_tokens: label tokens of all batches.
        """

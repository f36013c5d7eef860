"""What is left of a consolidation in memory once a penalty holds it in less memory, or in another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..consolidation import Consolidation, StoredConsolidation
from ..engines import Cut, Rows


@dataclass(frozen=True)
class HeldConsolidation:
    """A process's part of a consolidation, as the penalty of one training held it: enough for the next training.

    Attributes:
        importance: Omega by parameter name.
        anchor: `w*` by the same names.
        metadata: as `Consolidation`'s.
        is_rounded: whether the importance was rounded to bfloat16.
        let_go: names of what the consolidation told of besides, which was not trained.
    """

    importance: dict[str, Cut]
    anchor: dict[str, Cut]
    metadata: dict[str, Any]
    is_rounded: bool
    let_go: frozenset[str]

    def require_precision(self, bfloat16: bool) -> None:
        """Check that no precision is asked for that was given away.

        Raises:
            ValueError: the importance was rounded and is wanted as it was estimated.
        """
        if self.is_rounded and not bfloat16:
            raise ValueError(
                "expected ewc_state_dtype='bfloat16' as in the training before, which kept nothing finer of the "
                "consolidation in memory, got 'float32'; save the consolidation and pass its folder to the trainer"
            )


class Remembers(Protocol):
    """Importance and anchor by parameter name, wherever they are."""

    @property
    def importance(self) -> Mapping[str, Rows | Cut]:
        """Omega."""

    @property
    def anchor(self) -> Mapping[str, Rows | Cut]:
        """`w*`, by the same names."""


Remembered = Consolidation | StoredConsolidation | HeldConsolidation
"""What a model has to remember: in memory, on disk, or as the last training held it."""

"""An importance at a glance: how many weights of each kind of layer, and how important they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..engines import Rows, row_blocks
from ..storage import Tabular
from .weight_parts import grouped, kind_of


@dataclass(frozen=True)
class ImportanceOfPart:
    """The importance of the weights of one part.

    Attributes:
        name: of the part, such as a kind of layer.
        num_weights: how many.
        mean: of Omega, in the importance's unit a squared weight.
        largest: Omega.
    """

    name: str
    num_weights: int
    mean: float
    largest: float


def importance_of(name: str, tensors: Sequence[Rows]) -> ImportanceOfPart:
    """Return the mean and the maximum over a part's tensors, read a block at a time; under FSDP all processes call."""
    blocks = [(block.double().sum().item(), block.max().item()) for each in tensors for block in row_blocks(each)]
    num_weights = sum(math.prod(each.shape) for each in tensors)
    return ImportanceOfPart(
        name, num_weights, sum(total for total, _ in blocks) / num_weights, max(largest for _, largest in blocks)
    )


def importance_by_kind(importance: Mapping[str, Rows]) -> list[ImportanceOfPart]:
    """Return mean and maximum of each kind of layer, in the model's order.

    Args:
        importance: Omega by parameter name, in memory, sharded or on disk.
    """
    parts = grouped(list(importance), kind_of)
    return [importance_of(kind, [importance[name] for name in names]) for kind, names in parts.items()]


class Summarized(Tabular):
    """Shows itself by the kinds of layers of its importance; of a sharded one all processes call `summary`.

    Attributes:
        importance: Omega by parameter name.
        metadata: a consolidation's.
    """

    importance: Mapping[str, Rows]
    metadata: dict[str, Any]

    def __repr__(self) -> str:
        """Tell method, unit, examples, tokens and weights, without reading any tensor."""
        told, tasks = self.metadata, len(self.metadata["tasks"])
        parts = [
            told["method"] + (f" with {told['labels']} labels" if "labels" in told else ""),
            told["unit"],
            f"{told['num_examples']:,} examples, {told['num_tokens']:,} tokens" if told["num_tokens"] else "",
            f"{tasks} tasks" if tasks > 1 else "",
            f"{sum(math.prod(omega.shape) for omega in self.importance.values()):,} weights",
        ]
        return f"Consolidation({', '.join(filter(None, parts))})"

    def _rows(self) -> list[list[str]]:
        rows = [["kind of layer", "weights", "mean importance", "maximum"]]
        for part in importance_by_kind(self.importance):
            rows.append([part.name, f"{part.num_weights:,}", f"{part.mean:.3g}", f"{part.largest:.3g}"])
        return rows

"""Tokens that were added to a model since a consolidation was made, and single rows of a vocabulary that are trained.

Nothing remembers the rows of added tokens: their importance is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..data import token_table, transformers_model
from ..engines import Cut, Rows, TokenRows, named_parameters, trained_token_rows, whole_shape
from .held import Remembers


@dataclass(frozen=True)
class GrownRows:
    """`Rows` with rows of zeros below those that are known.

    Attributes:
        known: the first rows.
        shape: of all.
    """

    known: Rows
    shape: torch.Size

    @property
    def dtype(self) -> torch.dtype:
        """Of each number."""
        return self.known.dtype

    def __getitem__(self, rows: Any, /) -> Tensor:
        """Return rows `[first:last]`, or all by `[...]`."""
        first, last, _ = (slice(None) if rows is ... else rows).indices(self.shape[0])
        known = self.known[min(first, self.known.shape[0]) : min(last, self.known.shape[0])]
        added = known.new_zeros((last - first - len(known), *self.shape[1:]))
        return torch.cat([known, added])


@dataclass(frozen=True)
class Grown:
    """What a consolidation remembers, in the shapes of a model with more tokens: `Remembers`.

    Attributes:
        importance: Omega by parameter name, 0 of added tokens.
        anchor: `w*` by the same names, which does not count there.
    """

    importance: Mapping[str, Rows | Cut]
    anchor: Mapping[str, Rows | Cut]


def is_grown(name: str, old: torch.Size, new: torch.Size, model: nn.Module) -> bool:
    """Tell whether a parameter is one of the vocabulary, a row a token, and has more rows than before."""
    return old[1:] == new[1:] and new[:1] > old[:1] and name in _of_vocabulary(model)


def held_token_rows(model: nn.Module, consolidation: Remembers) -> dict[str, TokenRows]:
    """Return what trains single rows of a vocabulary of which a consolidation remembers one, by canonical name."""
    known = {name: omega.shape[0] if omega.shape else 0 for name, omega in consolidation.importance.items()}
    return {
        name: rows
        for name, rows in trained_token_rows(model).items()
        if any(token < known.get(rows.table, 0) for token in rows.tokens)
    }


def in_shapes_of(model: nn.Module, consolidation: Remembers) -> Remembers:
    """Return what a consolidation remembers in the shapes that a model has, whose vocabulary may have grown.

    Single rows of it that are trained by themselves (`held_token_rows`) are remembered by their own name.

    Args:
        model: as it is trained.
        consolidation: importance and anchor by parameter name.

    Raises:
        ValueError: the vocabulary has grown, and importance or anchor are sharded in memory.
    """
    shapes = {name: whole_shape(p) for name, p in named_parameters(model).items()}
    grown = {
        name: shapes[name]
        for name, omega in consolidation.importance.items()
        if name in shapes and is_grown(name, torch.Size(omega.shape), shapes[name], model)
    }
    single = held_token_rows(model, consolidation)
    if not grown and not single:
        return consolidation
    return Grown(_in_shapes(consolidation.importance, grown, single), _in_shapes(consolidation.anchor, grown, single))


def _in_shapes(
    tensors: Mapping[str, Rows | Cut], grown: Mapping[str, torch.Size], single: Mapping[str, TokenRows]
) -> dict[str, Rows | Cut]:
    fitted = {**tensors, **{name: GrownRows(_whole(tensors, name), shape) for name, shape in grown.items()}}
    for name, rows in single.items():
        table = _whole(fitted, rows.table)
        fitted[name] = torch.cat([table[token : token + 1] for token in rows.tokens])
    return fitted


def _whole(tensors: Mapping[str, Rows | Cut], name: str) -> Rows:
    """Return a tensor whose rows are all at hand.

    Raises:
        ValueError: it is sharded in memory.
    """
    known = tensors[name]
    if isinstance(known, DTensor | Cut):
        raise ValueError(
            "expected a stored consolidation for a model that has more tokens than it, or trains single rows of them, "
            f"got '{name}' sharded in memory; save it and pass its folder"
        )
    return known


def _of_vocabulary(model: nn.Module) -> set[str]:
    """Return the names of the parameters that have a row for each token."""
    known = transformers_model(model)
    ends = (token_table(model), None if known is None else known.get_output_embeddings())
    of_ends = {parameter for end in ends if end is not None for parameter in end.parameters()}
    return {name for name, parameter in named_parameters(model).items() if parameter in of_ends}

"""Which parameters of a model a consolidation protects; which of them an optimizer steps is another question."""

from __future__ import annotations

from collections.abc import Set

import torch
from torch import nn
from transformers.utils import logging

from ..engines import (
    adapted_matrices,
    named_parameters,
    require_own_copies,
    trainable_parameters,
    trained_token_rows,
    whole_shape,
)
from .grown import held_token_rows, is_grown
from .held import HeldConsolidation, Remembered

logger = logging.get_logger(__name__)


def protected_parameters(consolidation: Remembered, model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a model that a consolidation tells of, frozen ones too, by canonical name."""
    return {name: p for name, p in named_parameters(model).items() if name in consolidation.importance}


def require_matching_model(consolidation: Remembered, model: nn.Module) -> frozenset[str]:
    """Check that a consolidation protects weights that the model trains; warn of what it does not.

    Returns:
        The names of the trained parameters that move protected weights: these weights themselves, adapters, and rows.

    Raises:
        ValueError: no trainable parameter moves a weight that has an importance, a shape differs, or the model has
            adapters of which the penalty cannot take account (`adapted_matrices`).
    """
    trainable, protected = trainable_parameters(model), protected_parameters(consolidation, model)
    require_own_copies(model)
    adapted = {name: matrix for name, matrix in adapted_matrices(model).items() if name in consolidation.importance}
    of_adapters = trainable.keys() & frozenset().union(*(matrix.parameter_names for matrix in adapted.values()))
    themselves = protected.keys() & trainable.keys()
    shared = themselves | of_adapters | held_token_rows(model, consolidation).keys()
    if not shared:
        raise ValueError(
            f"expected parameters named as in the consolidation, such as '{next(iter(consolidation.importance))}', "
            f"got only others, such as '{next(iter(trainable))}'; give the consolidation of this architecture, or "
            "estimate the importance on the model as it is trained"
        )
    shapes = {name: whole_shape(trainable[name]) for name in themselves}
    shapes |= {name: matrix.shape for name, matrix in adapted.items()}
    tables = {rows.table for rows in trained_token_rows(model).values()}
    shapes |= {name: whole_shape(protected[name]) for name in tables & protected.keys()}
    for name in sorted(shapes):
        expected, got = tuple(consolidation.importance[name].shape), tuple(shapes[name])
        if is_grown(name, torch.Size(expected), torch.Size(got), model):
            logger.warning(
                f"'{name}' has {got[0]} rows: the {expected[0]} of the consolidation are held, those of added tokens "
                "move freely"
            )
        elif expected != got:
            raise ValueError(
                f"expected '{name}' of shape {expected} as in the consolidation, got {got}; estimate the importance "
                "again after resizing the model"
            )
    if free := sorted(trainable.keys() - shared):
        logger.warning(f"{len(free)} trainable parameters have no importance and move freely, such as '{free[0]}'")
    if lacking := sorted(consolidation.importance.keys() - protected.keys()):
        logger.warning(
            f"{len(lacking)} parameters of the consolidation are not in the model and are not held, such as "
            f"'{lacking[0]}'"
        )
    return frozenset(shared)


def protected_now(
    before: frozenset[str], consolidation: Remembered, model: nn.Module, is_another: bool
) -> frozenset[str]:
    """Return what is protected now: when the trainer is built, and again when a training begins, maybe in an engine.

    Of the model that was asked about before, weights that were frozen since are protected no more, and those that were
    unfrozen are. Names that it has no longer remain, for `require_all_coupled` to find.

    Args:
        before: what was returned before; nothing at first.
        consolidation: what protects.
        model: as it is trained.
        is_another: whether it may be another model than before.

    Raises:
        ValueError: as `require_matching_model`, or weights were unfrozen of which an earlier training has let go.
    """
    if not before or is_another:
        return require_matching_model(consolidation, model)
    parameters = named_parameters(model)
    frozen = {name for name in before & parameters.keys() if not parameters[name].requires_grad}
    unfrozen = {name for name in parameters.keys() - before if parameters[name].requires_grad}
    if isinstance(consolidation, HeldConsolidation) and (gone := sorted(unfrozen & consolidation.let_go)):
        raise ValueError(
            f"expected the trainable parameters of the training before, which kept nothing of others in memory, got "
            f"'{gone[0]}' unfrozen since; save the consolidation and pass its folder to the trainer"
        )
    return (before - frozen) | (unfrozen & consolidation.importance.keys())


def require_all_coupled(expected: Set[str], coupled: Set[str]) -> None:
    """Check, when training begins, that the penalty acts on every weight that matched before.

    Raises:
        ValueError: engines or wrappers have renamed some since, or the optimizer does not step them.
    """
    if missing := sorted(expected - coupled):
        raise ValueError(
            f"expected the penalty to act on all {len(expected)} protected parameters, got {len(expected & coupled)} "
            f"of them: not on {len(missing)}, such as '{missing[0]}'; give the optimizer all of them, freeze what is "
            "not to move, or leave out the wrapper that renames parameters"
        )

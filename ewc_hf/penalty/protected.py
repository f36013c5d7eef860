"""Which parameters of a model a consolidation protects; which of them an optimizer steps is another question."""

from __future__ import annotations

from torch import nn
from transformers.utils import logging

from ..consolidation import Consolidation, StoredConsolidation
from ..engines import named_parameters, trainable_parameters, whole_shape

logger = logging.get_logger(__name__)


def protected_parameters(
    consolidation: Consolidation | StoredConsolidation, model: nn.Module
) -> dict[str, nn.Parameter]:
    """Return the parameters of a model that a consolidation tells of, frozen ones too, by canonical name."""
    return {name: p for name, p in named_parameters(model).items() if name in consolidation.importance}


def require_matching_model(consolidation: Consolidation | StoredConsolidation, model: nn.Module) -> None:
    """Check that a consolidation protects weights that the model trains; warn of those that move freely.

    Raises:
        ValueError: no trainable parameter has an importance, or a shape differs.
    """
    trainable = trainable_parameters(model)
    shared = protected_parameters(consolidation, model).keys() & trainable.keys()
    if not shared:
        raise ValueError(
            f"expected parameters named as in the consolidation, such as '{next(iter(consolidation.importance))}', "
            f"got only others, such as '{next(iter(trainable))}'; a wrapper like PEFT puts a prefix before the "
            "names: train the model itself, or estimate the importance on the wrapped model"
        )
    for name in sorted(shared):
        expected, got = tuple(consolidation.importance[name].shape), tuple(whole_shape(trainable[name]))
        if expected != got:
            raise ValueError(
                f"expected '{name}' of shape {expected} as in the consolidation, got {got}; estimate the importance "
                "again after resizing the model"
            )
    if free := sorted(trainable.keys() - shared):
        logger.warning(f"{len(free)} trainable parameters have no importance and move freely, such as '{free[0]}'")

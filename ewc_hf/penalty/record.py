"""Which penalty a checkpoint was trained with, so that a resumed run does not change it without a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import ExportableState
from transformers.utils import logging

from .coupling import Coupling

logger = logging.get_logger(__name__)


class PenaltyRecord(TrainerCallback, ExportableState):
    """The record that `Trainer` saves, under this class's name, in the state of each checkpoint.

    Attributes:
        penalty: lambda, coupling, alpha, peak learning rates, and the fingerprints of importance and anchor; None
            before training begins.
    """

    def __init__(self) -> None:
        self.penalty: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        """Return what `Trainer` saves and restores."""
        return {"args": {}, "attributes": {"penalty": self.penalty}}


def penalty_record(
    metadata: Mapping[str, Any],
    ewc_lambda: float,
    coupling: Coupling,
    alpha: float | None,
    optimizer: torch.optim.Optimizer,
) -> dict[str, Any]:
    """Return what is recorded of a penalty.

    Args:
        metadata: of its consolidation.
        ewc_lambda: lambda.
        coupling: how it acts.
        alpha: a given one, 0 where it is plain; None is each group's peak learning rate. Only coupling `loss` has one.
        optimizer: whose groups' peak learning rates are recorded.
    """
    record = {
        "anchor": metadata["anchor"]["fingerprint"],
        "importance": metadata["importance_fingerprint"],
        "ewc_lambda": ewc_lambda,
        "ewc_coupling": coupling.value,
        "peak_learning_rates": [_peak_learning_rate(group) for group in optimizer.param_groups],
    }
    if coupling is Coupling.LOSS:
        record["alpha"] = "peak learning rate" if alpha is None else alpha
    return record


def _peak_learning_rate(group: Mapping[str, Any]) -> float:
    """Return the highest learning rate that is known of a group: most schedules begin at it, `OneCycleLR` names it."""
    return max(float(group[key]) for key in ("initial_lr", "lr", "max_lr") if key in group)


def recorded_penalty(states: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the penalty among the states of a checkpoint's callbacks; None where there was none."""
    record = states.get(PenaltyRecord.__name__)
    return None if record is None else record["attributes"]["penalty"]


def resumed_penalty(state: TrainerState, given: Mapping[str, Any] | None, allow_change: bool) -> dict[str, Any] | None:
    """Return the penalty that the checkpoint of a resumed run records; None where there was none, or no checkpoint.

    Args:
        state: of the run.
        given: see `require_same_penalty`.
        allow_change: whether another penalty may act from here on.

    Raises:
        ValueError: a change that is not allowed.
    """
    if state.global_step == 0:
        return None
    recorded = recorded_penalty(state.stateful_callbacks)
    if recorded is not None and not allow_change:
        require_same_penalty(recorded, given)
    if recorded is None and given is not None:
        logger.warning("The checkpoint was trained without this penalty, which acts from here on")
    return recorded


def require_same_penalty(recorded: Mapping[str, Any], given: Mapping[str, Any] | None) -> None:
    """Check that a run goes on with the penalty of its checkpoint; peak learning rates are read from there.

    Args:
        recorded: of the checkpoint.
        given: of the run that resumes; None where it has no penalty.

    Raises:
        ValueError: it has none, or another.
    """
    if given is None:
        got = "none"
    else:
        compared = sorted(recorded.keys() & given.keys() - {"peak_learning_rates"})
        got = ", ".join(f"{key} {given[key]}, not {recorded[key]}" for key in compared if recorded[key] != given[key])
    if got:
        raise ValueError(
            f"expected the penalty that the checkpoint was trained with, got {got}; pass the same one to resume, or "
            "allow the change by `EWCConfig(ewc_allow_change=True)`"
        )

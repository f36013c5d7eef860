"""Which rehearsal a checkpoint was trained with, so that a resumed run does not change it without a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState
from transformers.utils import logging

logger = logging.get_logger(__name__)


class RehearsalRecord(TrainerCallback, ExportableState):
    """The record that `Trainer` saves, under this class's name, in the state of each checkpoint.

    Attributes:
        rehearsal: the rows' metadata and digest, the weight and the rows a micro-batch.
    """

    def __init__(self) -> None:
        self.rehearsal: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        """Return what `Trainer` saves and restores."""
        return {"args": {}, "attributes": {"rehearsal": self.rehearsal}}


def require_same_rehearsal(states: Mapping[str, Any], given: Mapping[str, Any] | None) -> None:
    """Check that a run goes on with the rehearsal of its checkpoint.

    Args:
        states: of the checkpoint's callbacks.
        given: of the run that resumes; None where it has none.

    Raises:
        ValueError: the checkpoint had a rehearsal, and the run has none or another. One that the checkpoint had not is
            a warning.
    """
    recorded = states.get(RehearsalRecord.__name__)
    stored = None if recorded is None else recorded["attributes"]["rehearsal"]
    if stored is None and given is not None:
        logger.warning("The checkpoint was trained without this rehearsal, which begins here")
    if stored is None or stored == given:
        return
    if given is None:
        got = "none"
    else:
        different = sorted(key for key in stored.keys() | given.keys() if stored.get(key) != given.get(key))
        got = ", ".join(f"{key} {given.get(key)}, not {stored.get(key)}" for key in different)
    raise ValueError(
        f"expected the rehearsal that the checkpoint was trained with, got {got}; pass the same rows to resume, or "
        "allow the change by `EWCConfig(ewc_allow_change=True)`"
    )

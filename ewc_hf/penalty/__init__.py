"""How are the weights held?"""

from .coupling import CoupledPenalty, Coupling
from .diagonal import Diagonal
from .held import HeldConsolidation, Remembered
from .protected import require_all_coupled, require_matching_model
from .record import PenaltyRecord, penalty_record, recorded_penalty, require_same_penalty, resumed_penalty

__all__ = [
    "CoupledPenalty",
    "Coupling",
    "Diagonal",
    "HeldConsolidation",
    "PenaltyRecord",
    "Remembered",
    "penalty_record",
    "recorded_penalty",
    "require_all_coupled",
    "require_matching_model",
    "require_same_penalty",
    "resumed_penalty",
]

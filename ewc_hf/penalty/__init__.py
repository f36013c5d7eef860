"""How are the weights held?"""

from .budget import START, BudgetMixin
from .coupling import CoupledPenalty, Coupling, coupling_of
from .diagonal import Diagonal
from .distance import warn_if_far
from .held import HeldConsolidation, Remembered
from .low_rank import LowRank
from .protected import protected_now, require_all_coupled, require_matching_model
from .quadratic import Term
from .record import PenaltyRecord, penalty_record, recorded_penalty, require_same_penalty, resumed_penalty
from .terms import terms_of

__all__ = [
    "START",
    "BudgetMixin",
    "CoupledPenalty",
    "Coupling",
    "Diagonal",
    "HeldConsolidation",
    "LowRank",
    "PenaltyRecord",
    "Remembered",
    "Term",
    "coupling_of",
    "penalty_record",
    "protected_now",
    "recorded_penalty",
    "require_all_coupled",
    "require_matching_model",
    "require_same_penalty",
    "resumed_penalty",
    "terms_of",
    "warn_if_far",
]

"""How are the weights held?"""

from .coupling import CoupledPenalty, Coupling
from .diagonal import Diagonal
from .protected import require_all_coupled, require_matching_model

__all__ = [
    "CoupledPenalty",
    "Coupling",
    "Diagonal",
    "require_all_coupled",
    "require_matching_model",
]

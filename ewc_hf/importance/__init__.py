"""What matters to what a model knows?"""

from .estimate import estimate_importance
from .fisher import log_likelihood
from .l2 import l2_to_start
from .label_source import LabelSource
from .mas import MASOutput
from .methods import Method
from .synaptic import SynapticIntelligence

__all__ = [
    "LabelSource",
    "MASOutput",
    "Method",
    "SynapticIntelligence",
    "estimate_importance",
    "l2_to_start",
    "log_likelihood",
]

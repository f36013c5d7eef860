"""What matters to what a model knows?"""

from .estimate import estimate_importance
from .fisher import log_likelihood
from .l2 import l2_to_start
from .label_source import LabelSource
from .mas import MASOutput
from .methods import Method
from .pruning import PruningScope, prunable_layers, prune_weights, require_sparsity, sparsity_of
from .synaptic import SynapticIntelligence
from .weight_path import WeightPath

__all__ = [
    "LabelSource",
    "MASOutput",
    "Method",
    "PruningScope",
    "SynapticIntelligence",
    "WeightPath",
    "estimate_importance",
    "l2_to_start",
    "log_likelihood",
    "prunable_layers",
    "prune_weights",
    "require_sparsity",
    "sparsity_of",
]

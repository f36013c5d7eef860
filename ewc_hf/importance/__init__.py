"""Estimators of importance, one a file: `estimate_importance` runs them over a dataset, `synaptic` in a training."""

from .estimate import ImportanceMethod, estimate_importance
from .mas import MASOutput
from .synaptic import SynapticIntelligence

__all__ = ["ImportanceMethod", "MASOutput", "SynapticIntelligence", "estimate_importance"]

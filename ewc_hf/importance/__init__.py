"""Estimators of importance, one a file, and `estimate_importance`, which runs them over a dataset."""

from .estimate import ImportanceMethod, estimate_importance
from .mas import MASOutput

__all__ = ["ImportanceMethod", "MASOutput", "estimate_importance"]

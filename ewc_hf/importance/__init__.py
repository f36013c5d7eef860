"""Estimators of importance, one a file, and `estimate_importance`, which runs them over a dataset."""

from .estimate import estimate_importance

__all__ = ["estimate_importance"]

"""How well does a model predict?"""

from .interval import interval_over_documents
from .perplexity import PerplexityResult, evaluate_perplexity
from .retention import RetentionMixin
from .search import farthest_within

__all__ = [
    "PerplexityResult",
    "RetentionMixin",
    "evaluate_perplexity",
    "farthest_within",
    "interval_over_documents",
]

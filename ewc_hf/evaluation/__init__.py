"""How well does a model predict?"""

from .interval import interval_over_documents
from .perplexity import PerplexityResult, evaluate_perplexity
from .retention import RetentionMixin

__all__ = [
    "PerplexityResult",
    "RetentionMixin",
    "evaluate_perplexity",
    "interval_over_documents",
]

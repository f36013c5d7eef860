"""How well does a model predict?"""

from .perplexity import PerplexityResult, evaluate_perplexity, interval_over_documents
from .retention import RetentionMixin

__all__ = [
    "PerplexityResult",
    "RetentionMixin",
    "evaluate_perplexity",
    "interval_over_documents",
]

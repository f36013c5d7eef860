"""How well does a model predict?"""

from .before_after import NllChange, Scores, nll_change, scores_page, write_scores
from .benchmarks import BenchmarkScore, evaluate_benchmarks
from .interval import interval_over_documents
from .perplexity import PerplexityResult, evaluate_perplexity
from .retention import RetentionMixin
from .search import farthest_within
from .token_losses import Risen, TokenLoss, most_risen, token_losses

__all__ = [
    "BenchmarkScore",
    "NllChange",
    "PerplexityResult",
    "RetentionMixin",
    "Risen",
    "Scores",
    "TokenLoss",
    "evaluate_benchmarks",
    "evaluate_perplexity",
    "farthest_within",
    "interval_over_documents",
    "most_risen",
    "nll_change",
    "scores_page",
    "token_losses",
    "write_scores",
]

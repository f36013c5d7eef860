"""How well does a model predict?"""

from pathlib import Path

from .before_after import NllChange, Scores, nll_change, rise_in_words, scores_page, shown_change, write_scores
from .benchmarks import BenchmarkScore, evaluate_benchmarks
from .interval import interval_over_documents
from .perplexity import PerplexityResult, evaluate_perplexity
from .position_nll import example_nll, perplexity_metrics, position_nll, token_perplexity
from .retention import RetentionMixin
from .search import farthest_within
from .token_losses import Risen, TokenLoss, most_risen, token_losses

METRIC = str(Path(__file__).with_name("evaluate_metric.py"))
"""What `evaluate.load` loads, without a network."""

__all__ = [
    "METRIC",
    "BenchmarkScore",
    "NllChange",
    "PerplexityResult",
    "RetentionMixin",
    "Risen",
    "Scores",
    "TokenLoss",
    "evaluate_benchmarks",
    "evaluate_perplexity",
    "example_nll",
    "farthest_within",
    "interval_over_documents",
    "most_risen",
    "nll_change",
    "perplexity_metrics",
    "position_nll",
    "rise_in_words",
    "scores_page",
    "shown_change",
    "token_losses",
    "token_perplexity",
    "write_scores",
]

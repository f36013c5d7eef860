"""How far a mean over documents is to be trusted."""

from __future__ import annotations

import numpy as np


def interval_over_documents(sums: np.ndarray, num_tokens: np.ndarray, seed: int = 0) -> tuple[float, float] | None:
    """Return the 95% percentile bootstrap interval of `sums.sum() / num_tokens.sum()`, the documents being drawn.

    Args:
        sums: nats of each document.
        num_tokens: tokens of each document; those without any are left out.
        seed: of the 1,000 draws.

    Returns:
        Lower and upper end in nats per token; None for fewer than two documents.
    """
    from scipy.stats import bootstrap

    scored = num_tokens > 0
    if scored.sum() < 2:
        return None
    found = bootstrap(
        (sums[scored], num_tokens[scored]),
        lambda sums, counts, axis: sums.sum(axis=axis) / counts.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def shown_interval(interval: tuple[float, float] | None, sign: str = "") -> str:
    """Return an interval as it stands after its mean, nothing where there is none; the sign "+" shows both signs."""
    return "" if interval is None else f" ({interval[0]:{sign}.4f} to {interval[1]:{sign}.4f})"

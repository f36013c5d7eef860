"""Which lambda, by `Trainer.hyperparameter_search`: a search space, and what is minimized.

trainer = EWCTrainer(model_init=load, consolidation="ckpt", eval_dataset=dialogs, retention_texts=books, ...)
best = trainer.hyperparameter_search(lambda_space(), mean_nll, n_trials=20, direction="minimize")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from optuna import Trial


def lambda_space(low: float = 1.0, high: float = 1000.0) -> Callable[[Trial], dict[str, float]]:
    """Return the search space of `ewc_lambda`, evenly over its powers, as Optuna takes it.

    Args:
        low: the least lambda; the default suits Fisher.
        high: the largest.

    Raises:
        ValueError: not `0 < low < high`.
    """
    if not 0 < low < high < float("inf"):
        raise ValueError(f"expected 0 < low < high, got {low} and {high}")
    return lambda trial: {"ewc_lambda": trial.suggest_float("ewc_lambda", low, high, log=True)}


def mean_nll(metrics: Mapping[str, float]) -> float:
    """Return the mean of an evaluation's NLLs, in nats per token: of `eval_dataset` and of each retention text.

    Args:
        metrics: of `EWCTrainer.evaluate`.

    Raises:
        ValueError: no NLL of a retention text among them.
    """
    losses = {key: value for key, value in metrics.items() if key.startswith("eval_") and key.endswith("_loss")}
    of_retention_texts = [key for key in losses if f"{key.removesuffix('loss')}bits_per_byte" in metrics]
    if not of_retention_texts or len(losses) == len(of_retention_texts):
        raise ValueError(
            f"expected the NLLs of the task and of a retention text, got {sorted(metrics)}; give the trainer an "
            "eval_dataset and `retention_texts`, or else the weakest penalty always wins"
        )
    return float(np.mean([*losses.values()]))

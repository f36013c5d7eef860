"""Records of runs that nobody made, with round numbers."""

import math

from ewc_hf.study import RunRecord


def record(method, ewc_lambda, seed, task_nll, retention_nll, coupling="loss", **fields):
    bare = method in ("pretrained", "plain")
    return RunRecord(
        name=method if bare else f"{method}-{coupling}-{ewc_lambda:g}",
        method=method,
        overrides={} if bare else {"ewc_coupling": coupling, "ewc_lambda": ewc_lambda},
        seed=seed,
        task_nll=task_nll,
        task_perplexity=math.exp(task_nll),
        retention_nll=retention_nll,
        retention_perplexity=math.exp(retention_nll),
        seconds=60.0,
        peak_memory_bytes=3 * 2**20,
        **fields,
    )


PRETRAINED = record("pretrained", 0, None, 5.5, 4.0)


def curve(seed, *points, method="fisher", coupling="loss"):
    """Plain at task NLL 4.0 with a forgetting of 1 nat, then a run a (lambda, task NLL, forgetting removed)."""
    runs = [record(method, strength, seed, nll, 5.0 - removed, coupling) for strength, nll, removed in points]
    return [record("plain", 0, seed, 4.0, 5.0), *runs]


def study():
    first = curve(0, (10, 4.02, 0.26), (1000, 4.10, 0.5), (3000, 4.30, 0.75))
    second = curve(1, (10, 4.02, 0.36), (1000, 4.10, 0.6), (3000, 4.30, 0.75))
    l2 = [record("l2", 0.1, seed, 4.06, 4.9) for seed in (0, 1)]
    return [PRETRAINED, *first, *second, *l2]

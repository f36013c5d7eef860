"""Records of runs that nobody made, with round numbers."""

import math

from ewc_hf.study import RunRecord

TITLES = {"fisher": "EWC (Fisher)", "l2": "L2 to start"}


def record(method, strength, seed, task_nll, retention_nll, coupling="loss", **fields):
    bare = method in ("pretrained", "plain")
    given = {
        "name": method if bare else f"{method}-{coupling}-{strength:g}",
        "method": method,
        "curves": {} if bare else {f"{TITLES.get(method, method)}, {coupling}": strength},
        "label": "" if bare else f"{strength:g}",
        "overrides": {} if bare else {"ewc_coupling": coupling, "ewc_lambda": strength},
        "seed": seed,
        "task_nll": task_nll,
        "task_perplexity": math.exp(task_nll),
        "retention_nll": retention_nll,
        "retention_perplexity": math.exp(retention_nll),
        "seconds": 60.0,
        "peak_memory_bytes": 3 * 2**20,
    }
    return RunRecord(**{**given, **fields})


PRETRAINED = record("pretrained", 0, None, 5.5, 4.0)


def curve(seed, *points, method="fisher", coupling="loss"):
    """Plain at task NLL 4.0 with a forgetting of 1 nat, then a run a (strength, task NLL, forgetting removed)."""
    runs = [record(method, strength, seed, nll, 5.0 - removed, coupling) for strength, nll, removed in points]
    return [record("plain", 0, seed, 4.0, 5.0), *runs]


def study():
    first = curve(0, (10, 4.02, 0.26), (1000, 4.10, 0.5), (3000, 4.30, 0.75))
    second = curve(1, (10, 4.02, 0.36), (1000, 4.10, 0.6), (3000, 4.30, 0.75))
    l2 = [record("l2", 0.1, seed, 4.06, 4.9) for seed in (0, 1)]
    return [PRETRAINED, *first, *second, *l2]

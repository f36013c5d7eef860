"""Estimates that stop on their way."""

import pytest

from ewc_hf import estimate_importance
from ewc_hf.data import pad_examples

TOKENS = [{"input_ids": [(7 * n + 3 * t) % 38 + 2 for t in range(5 + n % 3)]} for n in range(11)]


class Interrupt(Exception):
    pass


def interrupt(*args):
    raise Interrupt


class Collator:
    """The default one; counts the examples that it was given and fails at a batch."""

    def __init__(self, model, fails_at=None):
        self.model, self.fails_at, self.given = model, fails_at, []

    def __call__(self, examples):
        self.fails_at = None if self.fails_at is None else self.fails_at - 1
        if self.fails_at == -1:
            raise Interrupt
        self.given.append(len(examples))
        return pad_examples(examples, self.model)


def estimate(model, examples, collator=None, **options):
    options = {"progress": False, "batch_size": 2, **options}
    return estimate_importance(model, iter(examples), data_collator=collator, **options)


def interrupted(model, examples, path, after=3, **options):
    with pytest.raises(Interrupt):
        estimate(model, examples, Collator(model, after), resume_file=path, **options)

"""Texts of a known number of tokens, and their perplexity in a window shorter than most of them."""

import random

from ewc_hf import evaluate_perplexity

WINDOW = 8


def letters(length, seed=0):
    """A text of exactly so many tokens, one a byte."""
    return "".join(random.Random(seed + 100 * length).choices("jqxz", k=length))


def measure(model, tokenizer, texts, **options):
    return evaluate_perplexity(model, tokenizer, texts, **{"window": WINDOW, "progress": False, **options})

"""Texts of a known number of tokens, and their perplexity in a window shorter than most of them."""

import random

import torch

from ewc_hf import evaluate_perplexity

WINDOW = 8


def letters(length, seed=0):
    """A text of exactly so many tokens, one a byte."""
    return "".join(random.Random(seed + 100 * length).choices("jqxz", k=length))


def measure(model, tokenizer, texts, **options):
    return evaluate_perplexity(model, tokenizer, texts, **{"window": WINDOW, "progress": False, **options})


def first_window(position, window, stride):
    """Where the first of the windows at 0, stride, 2*stride, ... begins that holds a position."""
    start = 0
    while start + window <= position:
        start += stride
    return start


def reference(model, first_token, documents, window, stride, bos_in_each_window=False):
    """Nats and predicted tokens of each document, given as lists of tokens."""
    model.eval()
    scores = []
    for ids in documents:
        tokens = [*first_token, *ids]
        nats = 0.0
        for position in range(1, len(tokens)):
            start = first_window(position, window, stride)
            context = [*first_token, *tokens[start + 1 : position]] if bos_in_each_window else tokens[start:position]
            with torch.no_grad():
                logits_V = model(input_ids=torch.tensor([context])).logits[0, -1]
            nats -= torch.log_softmax(logits_V, -1)[tokens[position]].item()
        scores.append((nats, max(len(tokens) - 1, 0)))
    return scores

"""The bootstrap interval over documents."""

import pytest
import torch
from measured_texts import letters, measure
from tiny import tiny_gpt2, tiny_tokenizer


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2(context=16, dtype=torch.float64)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def test_the_interval_is_over_documents_weighted_by_tokens(model, tokenizer):
    texts = [letters(5, seed=1), letters(25, seed=2)]
    result = measure(model, tokenizer, texts)
    alone = sorted(measure(model, tokenizer, [text]).nll for text in texts)
    assert result.nll_interval == pytest.approx(alone), "a quarter of the resamples hold one document only, twice"
    weighted = sum(score.nll_sum for score in result.documents) / 30
    assert result.nll == pytest.approx(weighted)


def test_the_interval_surrounds_the_mean_and_follows_the_seed(model, tokenizer):
    texts = [letters(length, seed=1) for length in range(3, 23)]
    first, again, other = (measure(model, tokenizer, texts, seed=seed) for seed in (0, 0, 1))
    low, high = first.nll_interval
    assert low < first.nll < high
    assert again == first
    assert other.nll == first.nll
    assert other.nll_interval != first.nll_interval


def test_one_document_has_no_interval(model, tokenizer):
    assert measure(model, tokenizer, [letters(20)]).nll_interval is None


@pytest.mark.parametrize("length", [[9], [9, 20]])
def test_an_empty_document_does_not_widen_the_interval(model, tokenizer, length):
    texts = [letters(n) for n in length]
    with_empty = measure(model, tokenizer, [*texts, ""])
    assert with_empty.nll_interval == measure(model, tokenizer, texts).nll_interval

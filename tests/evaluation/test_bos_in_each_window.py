"""The beginning-of-text token in each window: the same tokens are scored, each window's context begins with it."""

import pytest
import torch
from measured_texts import WINDOW, letters, measure, reference
from tiny import BOS, encode, tiny_gpt2, tiny_tokenizer

TEXTS = [letters(length) for length in (27, 0, WINDOW, 1, WINDOW + 1)]


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2(context=16, dtype=torch.float64)


@pytest.mark.parametrize("stride", [WINDOW - 1, 3, 1])
@pytest.mark.parametrize(("special", "first"), [({"bos_token": BOS}, 1), ({}, 0)], ids=["bos", "eos alone"])
def test_equals_the_slow_loop(model, stride, special, first):
    tokenizer = tiny_tokenizer(**special)
    documents = [encode(tokenizer, text) for text in TEXTS]
    expected = reference(model, [first], documents, WINDOW, stride, bos_in_each_window=True)
    result = measure(model, tokenizer, TEXTS, stride=stride, bos_in_each_window=True)
    assert [score.num_tokens for score in result.documents] == [count for _, count in expected]
    assert [score.nll_sum for score in result.documents] == pytest.approx([nats for nats, _ in expected], rel=1e-12)


def test_it_matters_past_the_first_window_only_and_the_result_tells(model):
    texts = [letters(WINDOW - 1), letters(WINDOW)]
    plain, repeated = (measure(model, tiny_tokenizer(), texts, bos_in_each_window=choice) for choice in (False, True))
    assert (plain.bos_in_each_window, repeated.bos_in_each_window) == (False, True)
    (short, long), (short_again, long_again) = plain.documents, repeated.documents
    assert short.nll_sum == pytest.approx(short_again.nll_sum, rel=1e-12)
    assert long.nll_sum != pytest.approx(long_again.nll_sum, rel=1e-6)
    assert plain.num_tokens == repeated.num_tokens


def test_without_such_a_token_there_is_nothing_to_repeat(model):
    with pytest.raises(ValueError, match=r"to repeat in each window, got one with neither; set `tokenizer.bos_token`"):
        measure(model, tiny_tokenizer(eos_token=None), TEXTS, bos_in_each_window=True)

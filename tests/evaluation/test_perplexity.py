"""Against a loop that feeds the model one context a token, in float64."""

import dataclasses
import math

import pytest
import torch
from measured_texts import WINDOW, letters, measure, reference
from tiny import BOS, EOS, SENTENCES, VOCABULARY, encode, tiny_gpt2, tiny_tokenizer
from transformers import ByT5Tokenizer

from ewc_hf import evaluate_perplexity

LENGTHS = (27, 0, WINDOW, 1, WINDOW - 2, 2 * WINDOW, WINDOW - 1, WINDOW + 1)
TEXTS = [letters(length) for length in LENGTHS]


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2(context=16, dtype=torch.float64)


@pytest.fixture(scope="module")
def uniform_model():
    """Every token costs log(vocabulary), whatever its context."""
    model = tiny_gpt2(dtype=torch.float64).requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.mark.parametrize("stride", [WINDOW - 1, WINDOW // 2, 3, 1])
@pytest.mark.parametrize(
    ("special", "first_token"),
    [
        pytest.param({"eos_token": EOS, "bos_token": BOS}, [1], id="begins with bos"),
        pytest.param({"eos_token": EOS}, [0], id="begins with eos"),
        pytest.param({"eos_token": None}, [], id="begins with the text"),
    ],
)
def test_equals_the_slow_loop(model, stride, special, first_token):
    tokenizer = tiny_tokenizer(**special)
    documents = [encode(tokenizer, text) for text in TEXTS]
    assert [len(ids) for ids in documents] == list(LENGTHS)
    expected = reference(model, first_token, documents, WINDOW, stride)
    result = measure(model, tokenizer, TEXTS, stride=stride)
    assert [score.num_tokens for score in result.documents] == [count for _, count in expected]
    assert [score.nll_sum for score in result.documents] == pytest.approx([nats for nats, _ in expected], rel=1e-12)
    nats, count = (sum(column) for column in zip(*expected, strict=True))
    assert result.num_tokens == count
    assert result.nll == pytest.approx(nats / count, rel=1e-12)
    assert result.perplexity == pytest.approx(math.exp(nats / count), rel=1e-12)


def test_a_smaller_stride_gives_more_context(model, tokenizer):
    one, most = (measure(model, tokenizer, [letters(40)], stride=stride).nll for stride in (1, WINDOW - 1))
    assert one != pytest.approx(most, rel=1e-6), "else the model of these tests does not look at the context"


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_batching_changes_nothing(model, tokenizer, batch_size):
    result, again = (measure(model, tokenizer, TEXTS, batch_size=size) for size in (batch_size, 8))
    sums, sums_again = ([score.nll_sum for score in r.documents] for r in (result, again))
    assert sums == pytest.approx(sums_again, rel=1e-12)
    assert result.num_tokens == again.num_tokens


@pytest.mark.parametrize(
    ("given", "same_as"),
    [
        pytest.param({"window": None}, {"window": 16, "stride": 8}, id="the model's context"),
        pytest.param({}, {"stride": WINDOW // 2}, id="half the window"),
        pytest.param({"window": 3}, {"window": 3, "stride": 1}, id="half of three"),
    ],
)
def test_defaults(model, tokenizer, given, same_as):
    assert measure(model, tokenizer, TEXTS, **given) == measure(model, tokenizer, TEXTS, **same_as)


def test_a_long_context_is_used_up_to_1024_tokens(tokenizer):
    model, texts = tiny_gpt2(context=2048), [" ".join(letters(550))]
    result = measure(model, tokenizer, texts, window=None)
    assert result.num_tokens == 1099
    assert result == measure(model, tokenizer, texts, window=1024, stride=512)


def test_means_a_token_word_byte_and_bit_by_hand(uniform_model, tokenizer):
    texts = ["zq xj\nq", "  né  ", ""]
    tokens, words, num_bytes = 7 + 7, 3 + 1, 7 + 7
    result = measure(uniform_model, tokenizer, texts)
    assert [(s.num_tokens, s.num_words, s.num_bytes) for s in result.documents] == [(7, 3, 7), (7, 1, 7), (0, 0, 0)]
    nats = tokens * math.log(VOCABULARY)
    assert result.nll == pytest.approx(math.log(VOCABULARY))
    assert result.perplexity == pytest.approx(VOCABULARY)
    assert result.word_perplexity == pytest.approx(VOCABULARY ** (tokens / words))
    assert result.byte_perplexity == pytest.approx(math.exp(nats / num_bytes))
    assert result.bits_per_byte == pytest.approx(nats / num_bytes / math.log(2))


def test_a_document_is_cut_with_its_words_and_bytes(model, tokenizer):
    cut = measure(model, tokenizer, ["zq xjjq zz", "q"], max_document_tokens=4)
    assert cut == measure(model, tokenizer, ["zq x", "q"])
    assert dataclasses.astuple(cut.documents[0])[1:] == (4, 2, 4)


def test_text_without_spaces_has_a_word_perplexity(model, tokenizer):
    assert measure(model, tokenizer, [letters(400)]).word_perplexity == math.inf


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored(tokenizer, training):
    model = tiny_gpt2().train(training)
    measure(model, tokenizer, TEXTS)
    assert all(module.training is training for module in model.modules())


def test_each_module_gets_its_own_mode_back(tokenizer):
    model = tiny_gpt2().train()
    model.transformer.h[0].eval()
    measure(model, tokenizer, TEXTS)
    assert not model.transformer.h[0].training


def test_the_mode_is_restored_after_an_error(tokenizer):
    model = tiny_gpt2().train()
    model.lm_head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure(model, tokenizer, TEXTS)
    assert model.training


def test_dropout_is_off(tokenizer):
    model = tiny_gpt2().train()
    assert model.config.resid_pdrop > 0
    assert measure(model, tokenizer, TEXTS) == measure(model, tokenizer, TEXTS)


def test_documents_may_come_from_a_generator(model, tokenizer):
    assert measure(model, tokenizer, (text for text in TEXTS)) == measure(model, tokenizer, TEXTS)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {}, "expected a document with a token to predict, got none in 0 documents"),
        (["", ""], {}, "expected a document with a token to predict, got none in 2 documents"),
        (["zq"], {"max_document_tokens": 0}, "expected batch_size and max_document_tokens >= 1, got 8 and 0"),
        (["zq"], {"window": 17}, "expected 2 <= window <= 16, the model's context, got 17"),
        (["zq"], {"window": 1}, "expected 2 <= window <= 16, the model's context, got 1"),
        (["zq"], {"stride": 0}, r"expected 1 <= stride .*\(8\), got 0"),
        (["zq"], {"stride": WINDOW}, r"expected 1 <= stride .*\(8\), got 8; windows overlap"),
        (["zq"], {"stride": WINDOW + 1}, r"expected 1 <= stride .*\(8\), got 9"),
    ],
)
def test_bad_input_is_named(model, tokenizer, texts, options, message):
    with pytest.raises(ValueError, match=message):
        measure(model, tokenizer, texts, **options)


def test_one_token_without_a_special_token_before_it_cannot_be_scored(model):
    with pytest.raises(ValueError, match="a token to predict"):
        measure(model, tiny_tokenizer(eos_token=None), ["z"])


def test_one_string_is_no_list_of_documents():
    with pytest.raises(ValueError, match=r"expected a list of documents, got one string.*letter by letter; wrap it"):
        evaluate_perplexity(tiny_gpt2(), tiny_tokenizer(), SENTENCES[0], progress=False)


def test_a_slow_tokenizer_is_refused(model):
    with pytest.raises(ValueError, match="expected a fast tokenizer, which tells where its tokens are, got ByT5Token"):
        measure(model, ByT5Tokenizer(), TEXTS)

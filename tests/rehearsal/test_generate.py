"""Rows that a model writes, and its answers to them and to old text."""

import logging

import pytest
import torch
from rehearsed import answered, bits, chat_tokenizer, generated, texts
from tiny import EOS, tiny_gpt2, tiny_tokenizer


def by_hand(model, tokens, num_tokens, temperature, seed):
    """Draw token by token from the softmax of all logits, which transformers rounds to float32."""
    torch.manual_seed(seed)
    while tokens.shape[1] < num_tokens:
        p = (model(tokens).logits[:, -1].float() / temperature).softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(p, 1)], 1)
    return tokens.tolist()


def written(rehearsal):
    return rehearsal.rows["input_ids"][:]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@torch.no_grad()
def test_rows_are_draws_from_the_whole_distribution(temperature):
    """Whatever the model's own settings of generation are; an end of text stops no row."""
    model = tiny_gpt2(dtype=torch.float64).eval()
    expected = by_hand(model, torch.zeros(40, 1, dtype=torch.long), 12, temperature, seed=3 * 1_000_003)
    own = {"eos_token_id": 0, "top_k": 3, "top_p": 0.5, "temperature": 0.1, "repetition_penalty": 2.0, "num_beams": 2}
    model.generation_config.update(max_length=5, **own)
    rows = written(generated(model, num_rows=40, batch_size=40, temperature=temperature, seed=3))
    assert rows == expected
    assert {len(row) for row in rows} == {12} and any(0 in row[1:-1] for row in rows)


@pytest.mark.parametrize(
    ("tokenizer", "begin"),
    [(tiny_tokenizer(), 0), (tiny_tokenizer(bos_token="<|begin|>"), 1)],
    ids=["end of text", "beginning of text"],
)
def test_rows_begin_with_the_beginning_of_text_or_else_its_end(tokenizer, begin):
    assert {row[0] for row in written(generated(tokenizer=tokenizer))} == {begin}


def test_chats_begin_as_the_template_does():
    """Then the model writes the user's words itself."""
    rows = written(generated(tokenizer=chat_tokenizer(), chat=True))
    beginning = tiny_tokenizer()("<|user|> ")["input_ids"]
    assert all(row[: len(beginning)] == beginning for row in rows) and 1 < len(beginning) < 12
    assert len({row[len(beginning)] for row in rows}) > 1


@pytest.mark.parametrize("chat", [True, False])
def test_a_chat_template_that_is_not_used_is_told_of(caplog, chat):
    with caplog.at_level(logging.WARNING):
        generated(tokenizer=chat_tokenizer(), chat=chat)
    assert ("begins with a user's turn" in caplog.text) is not chat


def test_without_a_template_there_is_no_word(caplog):
    with caplog.at_level(logging.WARNING):
        generated()
    assert not caplog.records


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_random_state_are_as_before(training):
    model = tiny_gpt2().train(training)
    model.transformer.h[0].eval()
    model.generation_config.update(temperature=0.3, do_sample=True, eos_token_id=5)
    own = model.generation_config
    modes = [module.training for module in model.modules()]
    before = own.to_dict(), model.config.to_dict(), torch.get_rng_state().tolist()
    weights = {name: p.clone() for name, p in model.state_dict().items()}
    generated(model)
    answered(texts(5), model)
    assert model.generation_config is own and [module.training for module in model.modules()] == modes
    assert (own.to_dict(), model.config.to_dict(), torch.get_rng_state().tolist()) == before
    assert all(torch.equal(p, weights[name]) for name, p in model.state_dict().items())


def test_dropout_is_off():
    model = tiny_gpt2().train()
    assert bits(generated(model)) == bits(generated(model.eval()))


def test_a_seed_is_the_same_rows_and_another_others():
    first, again, other = (generated(seed=seed) for seed in (0, 0, 1))
    assert bits(first) == bits(again)
    assert sum(row in written(first) for row in written(other)) == 0
    assert len(set(map(tuple, written(first)))) == len(first)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@torch.no_grad()
def test_answers_are_the_model_s_own_at_temperature_1(dtype, temperature):
    model = tiny_gpt2(dtype=getattr(torch, dtype)).eval()
    rehearsal = generated(model, temperature=temperature)
    for row in rehearsal.rows:
        logits = model(torch.tensor([row["input_ids"]])).logits[0]
        log_p, ids = logits.double().log_softmax(-1).topk(7)
        got, rest = (torch.tensor(row[name], dtype=torch.float64) for name in ("log_probs", "rest"))
        bound = 1e-12 if dtype == "float64" else 2**-11 * abs(log_p) + (1e-5 if dtype == "float32" else 0.05)
        assert (abs(got[:, :7] - log_p) <= bound).all()
        assert (rest - (1 - log_p.exp().sum(-1))).abs().max() < (1e-12 if dtype == "float64" else 0.02)
        assert dtype == "bfloat16" or torch.equal(torch.tensor(row["answer_ids"])[:, :7], ids)
    assert rehearsal.rows.features["log_probs"].feature.feature.dtype == (
        "float64" if dtype == "float64" else "float16"
    )


def test_autocast_around_the_call_is_off():
    expected = generated()
    with torch.autocast("cpu", torch.bfloat16):
        assert bits(generated()) == bits(expected)


def test_old_text_of_several_lengths_is_answered_as_row_by_row():
    model, rows = tiny_gpt2(dtype=torch.float64), texts(5, 16, 1, 9, 9, 3, 12)

    def alone(row):
        return answered([row], model).rows[0]

    together = answered(rows, model).rows
    assert written(answered(rows, model)) == [row["input_ids"] for row in rows]
    for number, row in enumerate(rows):
        found = [{name: torch.tensor(value) for name, value in of.items()} for of in (together[number], alone(row))]
        for name in ("answer_ids", "log_probs"):
            found = [{**of, name: of[name][:, :7]} for of in found]  # draws depend on the batch
        for name in ("answer_ids", "log_probs", "rest"):
            got, expected = (of[name] for of in found)
            assert (got - expected).abs().max() < 1e-12


@pytest.mark.parametrize("kind", [list, torch.tensor, lambda ids: torch.tensor(ids, dtype=torch.int32)])
def test_old_text_may_be_lists_or_tensors(kind):
    rows = texts(5, 9)
    given = [{"input_ids": kind(row["input_ids"]), "attention_mask": kind([1] * 5)} for row in rows]
    assert bits(answered(given)) == bits(answered(rows))
    assert answered(given).metadata == answered(rows).metadata


def test_the_metadata_tell_what_the_rows_are():
    model, tokenizer = tiny_gpt2(), tiny_tokenizer()
    by_model, by_text = generated(model, temperature=0.5, seed=4).metadata, answered(texts(5, 9), model).metadata
    expected = {"source": "model", "num_rows": 10, "num_tokens": 12, "top_k": 7, "vocab_size": 300, "batch_size": 4}
    expected |= {"temperature": 0.5, "seed": 4, "chat": False, "prompt": [tokenizer.convert_tokens_to_ids(EOS)]}
    assert by_model.items() >= expected.items()
    assert by_text.items() >= {"source": "text", "num_rows": 2, "num_tokens": 9, "tokenizer": None}.items()
    assert by_model["model"] == by_text["model"] != generated(tiny_gpt2(seed=1)).metadata["model"]
    assert by_model["tokenizer"] == answered(texts(5), model, tokenizer=tokenizer).metadata["tokenizer"]

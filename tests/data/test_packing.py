"""Blocks of tokens and their labels, against the tokens of the whole text."""

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from dialogs import MESSAGES, TURNS, WRITTEN
from tiny import BOS, SENTENCES, encode, tiny_tokenizer

from ewc_hf.data import IGNORED, document_texts, load_texts, pack
from ewc_hf.data.chat import chat_of, lines_of

pytestmark = pytest.mark.usefixtures("datasets_cache")

DOCUMENTS = ['She said: "Wait, please."', "Zwölf Boxkämpfer 🥊", "two\n\nparagraphs", "  spaces  "]
SHARED = Path(__file__).parents[2] / "../shared/data"


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = tiny_tokenizer(bos_token=BOS)
    assert tokenizer.encode("a") != encode(tokenizer, "a"), "else nobody notices a special token in the text"
    return tokenizer


def stream(tokenizer, documents):
    return list(chain.from_iterable([*encode(tokenizer, document), tokenizer.eos_token_id] for document in documents))


@pytest.mark.parametrize("block_size", [3, 7, 17, 64])
def test_blocks_join_to_the_tokens_and_drop_the_remainder(tokenizer, block_size):
    documents = [*SENTENCES, *DOCUMENTS, ""]
    tokens = stream(tokenizer, documents)
    assert len(tokens) % block_size, "else there is no remainder"
    blocks = pack(Dataset.from_dict({"text": documents, "other": documents}), tokenizer, block_size)
    assert blocks.column_names == ["input_ids", "labels"]
    assert {len(block) for block in blocks["input_ids"]} == {block_size}
    whole = len(tokens) // block_size * block_size
    assert list(chain.from_iterable(blocks["input_ids"])) == tokens[:whole]
    assert blocks["labels"] == blocks["input_ids"]


def test_the_remainder_is_dropped_once_a_thousand_documents(tokenizer):
    documents = [*["jj"] * 1000, *["qq"] * 10]
    blocks = pack(Dataset.from_dict({"text": documents}), tokenizer, 7)
    j, q = (stream(tokenizer, [document]) for document in ("jj", "qq"))
    assert list(chain.from_iterable(blocks["input_ids"])) == (j * 1000)[: 3000 // 7 * 7] + (q * 10)[: 30 // 7 * 7]


NUMBERED = [f"{number} {SENTENCES[number % 3]}" for number in range(1000)]


def test_no_more_documents_are_tokenized_than_fill_the_blocks_wanted(tokenizer):
    """Were all of them tokenized, the last of the thousand, which is no text, would be refused."""
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(3)).tolist()
    documents = list(NUMBERED)
    documents[order[-1]] = None
    dataset = Dataset.from_dict({"text": documents})
    with pytest.raises(ValueError, match=f"row {order[-1]}: "):
        pack(dataset, tokenizer, 16)
    first = stream(tokenizer, [documents[number] for number in order[:200]])
    some = pack(dataset, tokenizer, 16, max_blocks=20, seed=3)
    assert list(chain.from_iterable(some["input_ids"])) == first[: 20 * 16]
    assert some["labels"] == some["input_ids"]
    second = stream(tokenizer, [documents[number] for number in order[200:400]])
    in_first = len(first) // 16
    more = pack(dataset, tokenizer, 16, max_blocks=in_first + 1, seed=3)
    assert list(chain.from_iterable(more["input_ids"])) == first[: in_first * 16] + second[:16]
    other = pack(Dataset.from_dict({"text": NUMBERED}), tokenizer, 16, max_blocks=20, seed=4)
    assert other["input_ids"] != some["input_ids"]


def test_blocks_that_other_code_made_are_made_anew(tokenizer, tmp_path, monkeypatch):
    """And those of the same code are found again."""
    (tmp_path / "a.txt").write_text(" ".join(SENTENCES))

    def fingerprint():
        return pack(load_texts(str(tmp_path / "a.txt")), tokenizer, 8)._fingerprint

    before = fingerprint()
    assert fingerprint() == before
    monkeypatch.setattr("ewc_hf.data.packing._CODE", "another")
    assert fingerprint() != before


def test_more_blocks_than_there_are_give_all(tokenizer):
    dataset = Dataset.from_dict({"text": SENTENCES * 2})
    in_order, drawn = (pack(dataset, tokenizer, 2, max_blocks=count)["input_ids"][:] for count in (None, 10**9))
    assert len(drawn) == len(in_order)
    assert Counter(chain.from_iterable(drawn)) - Counter(stream(tokenizer, SENTENCES * 2)) == Counter()
    with pytest.raises(ValueError, match="expected max_blocks >= 1, got 0"):
        pack(dataset, tokenizer, 2, max_blocks=0)


def test_a_row_that_is_no_text_is_named_by_its_number_also_in_random_order(tokenizer):
    documents = [[{"speaker": "ann", "text": "a"}]] * 300
    documents[7] = [{"speaker": "ann", "text": None}]
    with pytest.raises(ValueError, match="row 7: expected what is said as a text"):
        pack(Dataset.from_dict({"turns": documents}), tokenizer, 4, max_blocks=10**6)


def test_a_text_that_fills_one_block_exactly_is_enough(tokenizer):
    dataset = Dataset.from_dict({"text": ["jqx"]})
    assert pack(dataset, tokenizer, 4)["input_ids"][:] == [[*encode(tokenizer, "jqx"), tokenizer.eos_token_id]]
    with pytest.raises(ValueError, match="at least one block of 5 tokens, got less in 1 documents; give more text"):
        pack(dataset, tokenizer, 5)


def packed(turns, tokenizer, learn_from, column="turns"):
    """The tokens and labels of one dialog, in one block, without the end-of-text token, learned like the last turn."""
    size = len(encode(tokenizer, WRITTEN)) + 1
    (block,) = pack(Dataset.from_list([{column: turns}]), tokenizer, size, learn_from=learn_from)
    last = next(iter(turns[-1].values()))
    assert block["input_ids"][-1] == tokenizer.eos_token_id
    assert block["labels"][-1] == (tokenizer.eos_token_id if learn_from in (None, last) else IGNORED)
    return block["input_ids"][:-1], block["labels"][:-1]


@pytest.mark.parametrize(("column", "turns"), [("turns", TURNS), ("messages", MESSAGES)])
@pytest.mark.parametrize("learn_from", [None, "ann", "bob"])
def test_labels_are_the_words_of_the_speaker(tokenizer, column, turns, learn_from):
    ids, labels = packed(turns, tokenizer, learn_from, column)
    assert ids == encode(tokenizer, WRITTEN), "pieces tokenize as the whole does"
    segments = lines_of(chat_of(turns), learn_from)
    for learned in (True, False):
        tokens = [token for token, label in zip(ids, labels, strict=True) if (label != IGNORED) is learned]
        assert tokenizer.decode(tokens) == "".join(text for text, counts in segments if counts is learned)
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))


def test_a_token_across_two_pieces_belongs_to_the_one_it_ends_in():
    """A tokenizer that does not split words first learns tokens such as `bob: Sn`."""
    turns = [{"speaker": "ann", "text": "Snow"}, {"speaker": "bob", "text": "Snow fell"}] * 3
    written = "ann: Snow\nbob: Snow fell\n" * 3
    tokenizer = tiny_tokenizer(sentences=[written] * 5, splits_words=False)
    tokens = encode(tokenizer, written)
    learned = [text for text, counts in lines_of(chat_of(turns), "bob") for _ in text if counts]
    assert len(learned) == 3 * len(" Snow fell\n")
    owners = list(chain.from_iterable([counts] * len(text) for text, counts in lines_of(chat_of(turns), "bob")))
    ends = [len(tokenizer.decode(tokens[: number + 1])) for number in range(len(tokens))]
    assert any(len(set(owners[start:end])) > 1 for start, end in zip([0, *ends], ends, strict=False))
    blocks = pack(Dataset.from_list([{"turns": turns}]), tokenizer, len(tokens) + 1, learn_from="bob")
    assert blocks[0]["input_ids"][:-1] == tokens
    expected = [token if owners[end - 1] else IGNORED for token, end in zip(tokens, ends, strict=True)]
    assert blocks[0]["labels"][:-1] == expected


def test_a_speaker_whom_nobody_is_is_refused(tokenizer):
    with pytest.raises(ValueError, match="nobody"):
        pack(Dataset.from_list([{"turns": TURNS}] * 2), tokenizer, 8, learn_from="nobody")


def test_learning_from_someone_needs_dialogs(tokenizer):
    dataset = Dataset.from_dict({"text": SENTENCES})
    with pytest.raises(ValueError, match="expected dialogs for learn_from='bob', got plain text in 'text'"):
        pack(dataset, tokenizer, 4, learn_from="bob")


def test_a_tokenizer_without_an_end_of_text_token_is_refused():
    with pytest.raises(ValueError, match=r"fast tokenizer with an end-of-text token, got .*eos_token=None; set"):
        pack(Dataset.from_dict({"text": SENTENCES}), tiny_tokenizer(eos_token=None), 4)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared books and dialogs are not beside this checkout")
@pytest.mark.parametrize("name", ["books", "dialogs"])
def test_the_shared_data(tokenizer, name):
    dataset = load_texts(str(SHARED / name), split="validation", max_documents=20)
    texts = document_texts(dataset)
    assert len(texts) == 20 and all(text.strip() for text in texts)
    blocks = pack(dataset, tokenizer, 128)
    tokens = stream(tokenizer, texts)
    assert list(chain.from_iterable(blocks["input_ids"])) == tokens[: len(tokens) // 128 * 128]

import csv
import json
from itertools import chain
from pathlib import Path

import datasets
import pytest
from datasets import Dataset
from ewc_hf.labels import IGNORED
from ewc_hf.text import dialog_segments, document_texts, load_texts, pack
from tiny import BOS, SENTENCES, encode, tiny_tokenizer

DOCUMENTS = ['She said: "Wait, please."', "Zwölf Boxkämpfer 🥊", "two\n\nparagraphs", "  spaces  "]
TURNS = [
    {"speaker": "ann", "text": "Hello there!"},
    {"speaker": "bob", "text": "Snow  fell, 🥊 and\nthe river… "},
    {"speaker": "ann", "text": ""},
    {"speaker": "bob", "text": "bob: I am well"},
]
MESSAGES = [{"role": turn["speaker"], "content": turn["text"]} for turn in TURNS]
WRITTEN = "ann: Hello there!\nbob: Snow  fell, 🥊 and\nthe river… \nann: \nbob: bob: I am well\n"
SHARED = Path(__file__).parents[1] / "../shared/data"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = tiny_tokenizer(bos_token=BOS)
    assert tokenizer.encode("a") != encode(tokenizer, "a"), "else nobody notices a special token in the text"
    return tokenizer


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def write(path, documents, column="text"):
    rows = [{column: document, "number": number} for number, document in enumerate(documents)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        Dataset.from_dict({column: list(documents), "number": range(len(rows))}).to_parquet(path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [column, "number"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(documents), encoding="utf-8")
    return str(path)


# --- reading


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "csv"])
def test_each_row_of_a_file_is_a_document(data, kind):
    dataset = load_texts(write(data / f"any_name.{kind}", DOCUMENTS))
    assert document_texts(dataset) == DOCUMENTS


def test_a_text_file_is_one_document(data):
    text = "first line\n\nafter a blank line\n\n\nand more: é\n"
    assert document_texts(load_texts(write(data / "book.txt", [text]))) == [text]


@pytest.mark.parametrize(
    ("files", "split", "read"),
    [
        pytest.param(["train-0.jsonl", "train-1.jsonl", "test.jsonl"], "train", [0, 1], id="the split's files"),
        pytest.param(["train-0.jsonl", "train-1.jsonl", "test.jsonl"], "test", [2], id="another split"),
        pytest.param(["a.csv", "b.csv"], "train", [0, 1], id="all, where none is named by the split"),
        pytest.param(["README.md", "b.parquet", "LICENSE"], "train", [1], id="of others no notice is taken"),
        pytest.param(["train.parquet", "test.csv"], "train", [0], id="a split of one kind among others"),
        pytest.param(["b.txt", "a.txt"], "train", [1, 0], id="text files, sorted by name"),
    ],
)
def test_a_folder(data, files, split, read):
    for number, name in enumerate(files):
        write(data / name, [f"document {number}"])
    assert document_texts(load_texts(str(data), split=split)) == [f"document {number}" for number in read]


def test_a_sample_follows_the_seed(data):
    numbers = [str(number) + "." for number in range(50)]
    source = write(data / "numbers.jsonl", numbers)
    first, again, other = (document_texts(load_texts(source, max_documents=10, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 10 and set(first) < set(numbers)
    assert first != sorted(first, key=float), "a sample, not the beginning"


@pytest.mark.parametrize("max_documents", [None, 4, 5])
def test_a_sample_as_large_as_the_file_is_the_file(data, max_documents):
    source = write(data / "all.jsonl", DOCUMENTS)
    assert document_texts(load_texts(source, max_documents=max_documents)) == DOCUMENTS


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        pytest.param(["paper.pdf"], "paper.pdf", r"kinds \['.csv', .*'.txt'\] in '.*paper.pdf'", id="unknown"),
        pytest.param(["paper.pdf"], "", "in '.*data', got none; name one file", id="a folder of unknown ones"),
        pytest.param([], "", "got none; name one file", id="an empty folder"),
        pytest.param(["a.csv", "b.txt"], "", r"got \['.csv', '.txt'\]; name one file", id="mixed"),
    ],
)
def test_files_that_cannot_be_read_are_named(data, files, source, message):
    for name in files:
        write(data / name, ["words"])
    with pytest.raises(ValueError, match=message):
        load_texts(str(data / source))


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", ""), ("a.json", "[]"), ("a.csv", ""), ("b.csv", "text\n"), ("a.txt", "")]
)
def test_a_file_without_a_document_is_named(data, name, content):
    (data / name).write_text(content)
    with pytest.raises(ValueError, match=r"expected at least one document in .*; check the file and the split"):
        load_texts(str(data / name))


# --- writing dialogs as text


@pytest.mark.parametrize("turns", [TURNS, MESSAGES], ids=["turns", "messages"])
@pytest.mark.parametrize("learn_from", [None, "ann", "bob", "nobody"])
def test_segments_join_to_the_text(turns, learn_from):
    segments = dialog_segments(turns, learn_from)
    assert "".join(text for text, _ in segments) == WRITTEN
    learned = "".join(text for text, learned in segments if learned)
    said = {"ann": " Hello there!\n \n", "bob": " Snow  fell, 🥊 and\nthe river… \n bob: I am well\n", "nobody": ""}
    assert learned == (WRITTEN if learn_from is None else said[learn_from])


@pytest.mark.parametrize(("column", "turns"), [("turns", TURNS), ("messages", MESSAGES)])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_dialogs_become_documents(data, column, turns, kind):
    dataset = load_texts(write(data / f"dialogs.{kind}", [turns, turns[:1]], column))
    assert document_texts(dataset) == [WRITTEN, "ann: Hello there!\n"]


def test_a_column_can_be_named():
    dataset = Dataset.from_dict({"text": ["a"], "chat": [TURNS], "title": ["b"]})
    assert document_texts(dataset) == ["a"]
    assert document_texts(dataset, "title") == ["b"]
    assert document_texts(dataset, "chat") == [WRITTEN]


def test_dialogs_come_before_text():
    assert document_texts(Dataset.from_dict({"text": ["a summary"], "turns": [TURNS]})) == [WRITTEN]


@pytest.mark.parametrize(
    ("columns", "asked", "message"),
    [
        (["body"], None, r"expected a column named turns or messages or text, got \['body'\]"),
        (["text", "body"], "words", r"expected a column named words, got \['text', 'body'\]"),
    ],
)
def test_a_missing_column_is_named(tokenizer, columns, asked, message):
    dataset = Dataset.from_dict({column: ["words"] for column in columns})
    with pytest.raises(ValueError, match=message):
        document_texts(dataset, asked)
    with pytest.raises(ValueError, match=message):
        pack(dataset, tokenizer, 4, column=asked)


@pytest.mark.parametrize(
    "turn", [{"speaker": "ann", "content": "x"}, {"role": "ann", "text": "x"}, {"text": "x"}, {"from": "ann"}]
)
def test_a_turn_without_its_keys_is_named(turn):
    with pytest.raises(ValueError, match=r"'speaker' and 'text' or 'role' and 'content', got \["):
        dialog_segments([turn])


# --- packing


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
    segments = dialog_segments(turns, learn_from)
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
    learned = [text for text, counts in dialog_segments(turns, "bob") for _ in text if counts]
    assert len(learned) == 3 * len(" Snow fell\n")
    owners = list(chain.from_iterable([counts] * len(text) for text, counts in dialog_segments(turns, "bob")))
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
    with pytest.raises(ValueError, match="expected dialogs for learn_from='bob', got plain text in the column 'text'"):
        pack(dataset, tokenizer, 4, learn_from="bob")


def test_a_tokenizer_without_an_end_of_text_token_is_refused():
    with pytest.raises(ValueError, match=r"fast tokenizer with an end-of-text token, got .*eos_token=None; set"):
        pack(Dataset.from_dict({"text": SENTENCES}), tiny_tokenizer(eos_token=None), 4)


# --- the real data


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared books and dialogs are not beside this checkout")
@pytest.mark.parametrize("name", ["books", "dialogs"])
def test_the_shared_data(tokenizer, name):
    dataset = load_texts(str(SHARED / name), split="validation", max_documents=20)
    texts = document_texts(dataset)
    assert len(texts) == 20 and all(text.strip() for text in texts)
    blocks = pack(dataset, tokenizer, 128)
    tokens = stream(tokenizer, texts)
    assert list(chain.from_iterable(blocks["input_ids"])) == tokens[: len(tokens) // 128 * 128]

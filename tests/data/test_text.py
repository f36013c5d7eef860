"""Documents of files and folders, texts and dialogs."""

import csv
import json

import pytest
from datasets import Dataset
from dialogs import MESSAGES, TURNS, WRITTEN
from tiny import tiny_tokenizer

from ewc_hf.data import document_texts, load_texts, pack

pytestmark = pytest.mark.usefixtures("datasets_cache")

DOCUMENTS = ['She said: "Wait, please."', "Zwölf Boxkämpfer 🥊", "two\n\nparagraphs", "  spaces  "]


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
        (["body"], None, r"expected a column named turns or messages or .* or text, got \['body'\]"),
        (["text", "body"], "words", r"expected a column named words, got \['text', 'body'\]"),
    ],
)
def test_a_missing_column_is_named(columns, asked, message):
    dataset = Dataset.from_dict({column: ["words"] for column in columns})
    with pytest.raises(ValueError, match=message):
        document_texts(dataset, asked)
    with pytest.raises(ValueError, match=message):
        pack(dataset, tiny_tokenizer(), 4, column=asked)

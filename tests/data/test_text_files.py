"""Local files in the forms that users have, and what is said of broken ones."""

import gzip

import pytest
from datasets import Dataset, DatasetDict, DatasetInfo
from datasets.arrow_writer import ArrowWriter

from ewc_hf.data import document_texts, load_texts

pytestmark = pytest.mark.usefixtures("datasets_cache")

LINES = '{"text": "one"}\n\n{"text": "two é"}\n'


@pytest.mark.parametrize(
    ("name", "content", "documents"),
    [
        ("a.jsonl", LINES.encode(), ["one", "two é"]),
        ("a.jsonl", b"\xef\xbb\xbf" + LINES.encode(), ["one", "two é"]),
        ("a.jsonl", LINES.replace("\n", "\r\n").encode(), ["one", "two é"]),
        ("a.jsonl.gz", gzip.compress(LINES.encode()), ["one", "two é"]),
        ("a.csv.gz", gzip.compress(b"text\none\n"), ["one"]),
        ("a.txt.gz", gzip.compress(b"one\ntwo\n"), ["one\ntwo\n"]),
        ("a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n", ["one\ntwo\n"]),
        ("a.json", b'[{"text": "one"}, {"text": "two"}]', ["one", "two"]),
    ],
    ids=["lines", "lines, BOM", "lines, CRLF", "lines, gz", "csv, gz", "txt, gz", "txt, BOM and CRLF", "json"],
)
def test_a_file(tmp_path, name, content, documents):
    (tmp_path / name).write_bytes(content)
    assert document_texts(load_texts(str(tmp_path / name))) == documents


def test_folders_that_the_library_saved(tmp_path):
    train, test = Dataset.from_dict({"text": ["one", "two"]}), Dataset.from_dict({"text": ["three"]})
    train.save_to_disk(tmp_path / "one")
    DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "both")
    assert document_texts(load_texts(str(tmp_path / "one"))) == ["one", "two"]
    assert document_texts(load_texts(str(tmp_path / "both"), split="test")) == ["three"]
    with pytest.raises(ValueError, match=r"expected a split 'validation' in '.*both', got \['test', 'train'\]"):
        load_texts(str(tmp_path / "both"), split="validation")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", LINES.encode() + b'{"text": "thr\n', r"a.jsonl', line 4: .* at column 10; mend or remove it"),
        ("a.jsonl", b'{"text": "one"}\n{"text": "\xe9"}\n', r"a.jsonl', line 2: the byte 0xe9, which is none; save"),
        ("a.json", b'[{"text": "one"},\n{"text": "two"\n]', r"a.json', line 3: .*; mend or remove it"),
        ("a.csv", b"text\none\n\xe9\n", r"a.csv', line 3: the byte 0xe9"),
        ("a.csv", b"text,other\none,1\ntwo,2,3\n", r"expected at least one document in '.*a.csv', got .*line 3"),
        ("a.txt", b"one\ntwo \xff", r"a.txt', line 2: the byte 0xff"),
        ("a.parquet", b"PAR1", r"expected at least one document in '.*a.parquet', got "),
    ],
    ids=["a broken line", "not UTF-8", "broken json", "csv in latin-1", "csv with a cell too many", "txt", "pq"],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        load_texts(str(tmp_path / name))


def test_a_null_text_is_told_with_its_row(tmp_path):
    for null in ('{"text": null}', "null"):
        (tmp_path / "a.jsonl").write_text('{"text": "one"}\n' + null)
        with pytest.raises(ValueError, match="row 1: expected a text or a list of turns, got None; filter such rows"):
            document_texts(load_texts(str(tmp_path / "a.jsonl")))


@pytest.mark.parametrize(
    "source", ["no/such/folder", "./absent", "~/absent", "/absent", "absent.jsonl", "here/absent"]
)
def test_a_path_that_does_not_exist_never_asks_the_hub(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(ValueError, match=f"got '.*{source[-6:]}', which does not exist"):
        load_texts(source)


def test_what_can_be_a_hub_id_is_asked_for_there(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="got 'nobody/nothing', of which the Hub says"):
        load_texts("nobody/nothing")


def test_a_hub_dataset_of_several_configurations(tmp_path, monkeypatch):
    """From the cache, where a download leaves them."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    for name, text in (("large", "many words"), ("small", "few")):
        folder = tmp_path / "cache" / "nobody___two" / name / "0.0.0" / "0123"
        folder.mkdir(parents=True)
        made = Dataset.from_dict({"text": [text]})
        with ArrowWriter(path=folder / "two-train.arrow", features=made.features) as writer:
            writer.write_table(made.data.table)
            number, size = writer.finalize()
        splits = {"train": {"name": "train", "num_bytes": size, "num_examples": number, "dataset_name": "two"}}
        info = DatasetInfo(features=made.features, config_name=name, version="0.0.0", splits=splits)
        info.write_to_directory(folder)
    assert load_texts("nobody/two:small")["text"] == ["few"]
    assert load_texts("nobody/two:large")["text"] == ["many words"]
    with pytest.raises(
        ValueError, match=r"(?s)multiple 'nobody/two' configurations.*; check owner/name:configuration"
    ):
        load_texts("nobody/two")


def test_of_a_folder_of_splits_no_other_one_is_read_in_its_place(tmp_path):
    for name in ("train.jsonl", "validation.jsonl"):
        (tmp_path / name).write_text(LINES)
    with pytest.raises(ValueError, match=r"files that begin with 'test' in '.*', got \['train.jsonl', 'validation"):
        load_texts(str(tmp_path), split="test")


@pytest.mark.parametrize("good", ['{"text": "a\u2028b"}', '{"text": "c\x85d"}'])
def test_lines_end_where_json_lines_do(tmp_path, good):
    (tmp_path / "a.jsonl").write_text(f'{good}\n{{"text": "broken\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"a.jsonl', line 2: "):
        load_texts(str(tmp_path / "a.jsonl"))

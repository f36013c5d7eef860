import pytest

from ewc_hf.storage import read_json, replaced, write_json


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "kept.json"
    path.write_text("old")
    with replaced(path) as temporary:
        assert temporary.parent == tmp_path, "a rename is atomic inside one folder only"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "kept.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half way"), replaced(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_before_anything_is_written_is_not_hidden(tmp_path):
    with pytest.raises(RuntimeError, match="too early"), replaced(tmp_path / "never.json"):
        raise RuntimeError("too early")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rename_leaves_no_temporary(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError), replaced(tmp_path / "folder") as temporary:
        temporary.write_text("a file cannot replace a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_json_is_readable_and_reads_back(tmp_path):
    content = {"lambda": 30.0, "name": "Bücher", "tasks": [1, None]}
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "lambda": 30.0,\n') and text.endswith("}\n")
    assert read_json(tmp_path / "a.json") == content


@pytest.mark.parametrize(
    "content", [b"", b'{"half": ', b"not json", b"\xff\xfe"], ids=["empty", "truncated", "words", "bytes"]
)
def test_what_is_not_json_is_named(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected JSON in '.*broken\.json', got something else .*save it again"):
        read_json(path)


@pytest.mark.parametrize("name", ["missing.json", "."], ids=["no file", "a folder"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(ValueError, match=r"expected the file '.*' in '.*', got no such file; check the folder"):
        read_json(tmp_path / name)

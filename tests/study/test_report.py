import dataclasses
import json
import re

import pytest
from made_up_records import PRETRAINED, curve, record, study

from ewc_hf.study import MissingRun, RunRecord, TextNames, markdown_report, read_report, write_report
from ewc_hf.study.contents import sections
from ewc_hf.study.curves import removed_at
from ewc_hf.study.page import html_report
from ewc_hf.study.picture import draw_pictures
from ewc_hf.study.records import with_forgetting

NAMES = TextNames("dialogs", "books")


def tables(markdown):
    """Every table of a Markdown text, as a list of rows {heading: cell}."""
    found, rows = [], []
    for line in [*markdown.splitlines(), ""]:
        if line.startswith("| "):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            found.append([dict(zip(rows[0], row, strict=True)) for row in rows[2:]])
            rows = []
    return found


def test_markdown_shows_every_table_under_its_heading_with_its_note():
    text = markdown_report(study(), NAMES, "A title")
    shown = sections(with_forgetting(study()), NAMES)
    assert text.startswith("# A title\n\n## settings\n\n| name ")
    assert re.findall("^## (.*)$", text, re.MULTILINE) == [section.heading for section in shown]
    expected = [[dict(zip(section.table[0], row, strict=True)) for row in section.table[1:]] for section in shown]
    assert tables(text) == expected
    assert [section.note for section in shown if f"|\n\n{section.note}\n" not in text] == []


def test_written_report_reads_back_and_leaves_nothing_else(tmp_path):
    folder = tmp_path / "a" / "b"
    paths = write_report(study(), folder, NAMES, "A title")
    write_report(study(), folder, NAMES, "A title")
    assert paths == tuple(folder / f"report.{kind}" for kind in ("json", "md", "png", "html"))
    assert sorted(folder.iterdir()) == sorted(paths)
    assert read_report(paths[0]) == (with_forgetting(study()), NAMES)
    assert paths[1].read_text(encoding="utf-8") == markdown_report(study(), NAMES, "A title")
    page = html_report(with_forgetting(study()), NAMES, "A title", [], [paths[2].read_bytes()])
    assert paths[3].read_text(encoding="utf-8") == page
    state = json.loads(paths[0].read_text())
    assert list(state) == ["names", "missing", "runs", "removed_at"]
    assert state["missing"] == []
    assert state["names"] == {"task": "dialogs", "retention": "books"}
    assert all(list(run) == [field.name for field in dataclasses.fields(RunRecord)] for run in state["runs"])
    expected = [dataclasses.asdict(row) for x in (0.01, 0.02, 0.03, 0.05) for row in removed_at(study(), x)]
    assert state["removed_at"] == expected


def test_everything_that_a_record_says_reads_back(tmp_path):
    run = record(
        "plain",
        0,
        0,
        4.1,
        4.5,
        name="plain-0.5",
        curves={"plain, interpolated": 0.5},
        label="0.5",
        needs_old_text=True,
        fraction=0.5,
        seconds_a_step=0.25,
        continuations=[["task", "a: Hi", "b: Hello"]],
        retention_documents=[[9.0, 2], [8.0, 2]],
    )
    path, *_ = write_report([*study(), run], tmp_path, NAMES)
    assert read_report(path)[0] == with_forgetting([*study(), run])


def test_curves_that_find_no_room_have_a_picture_of_their_own_which_goes_with_them(tmp_path):
    many = [PRETRAINED, *curve(0), *(record(f"method {i}", 1, 0, 4.1, 4.5) for i in range(9))]
    more = tmp_path / "report_more.png"
    *_, page = write_report(many, tmp_path, NAMES)
    pictures = draw_pictures(with_forgetting(many), NAMES, "Fine-tuning without forgetting")
    assert [(tmp_path / "report.png").read_bytes(), more.read_bytes()] == pictures
    assert page.read_text().count("<img ") == 2
    *_, page = write_report(many[:-1], tmp_path, NAMES)
    assert not more.exists()
    assert page.read_text().count("<img ") == 1


def test_an_unfinished_report_says_what_is_missing(tmp_path):
    missing = [MissingRun("l2-loss-1", 0), MissingRun("plain", 2), MissingRun("l2-loss-1", 2)]
    written, text, picture, page = write_report(study(), tmp_path / "unfinished", NAMES, "A title", missing)
    assert json.loads(written.read_text())["missing"] == [dataclasses.asdict(run) for run in missing]
    said = "**Unfinished: 11 of 14 runs.** Missing: l2-loss-1, seed 0, 2; plain, seed 2."
    assert text.read_text().startswith(f"# A title\n\n{said}\n\n## settings\n")
    _, whole, drawn, _ = write_report(study(), tmp_path / "whole", NAMES, "A title")
    assert text.read_text() == whole.read_text().replace("# A title\n", f"# A title\n\n{said}\n", 1)
    assert picture.read_bytes() != drawn.read_bytes(), "its title says so"
    assert "Missing: l2-loss-1, seed 0, 2; plain, seed 2." in page.read_text()


def test_a_report_that_cannot_be_made_leaves_the_old_one(tmp_path):
    paths = write_report(study(), tmp_path, NAMES)
    before = [path.read_bytes() for path in paths]
    with pytest.raises(ValueError, match="pretrained"):
        write_report(study()[1:], tmp_path, NAMES)
    assert [path.read_bytes() for path in paths] == before


def test_a_failed_rename_leaves_no_temporary_and_keeps_the_old_file(tmp_path, monkeypatch):
    paths = write_report(study(), tmp_path, NAMES)
    before = paths[0].read_bytes()

    def refuse(source, target):
        assert source.parent == target.parent == tmp_path
        assert source.read_bytes()
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="no space left"):
        write_report(study()[:-1], tmp_path, NAMES)
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert paths[0].read_bytes() == before


def without(field):
    """A whole report as of a version whose records had no such field."""
    run = {key: value for key, value in dataclasses.asdict(PRETRAINED).items() if key != field}
    return json.dumps({"names": dataclasses.asdict(NAMES), "missing": [], "runs": [run], "removed_at": []})


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        "{}",
        '{"runs": [{"name": "plain"}]}',
        '{"runs": [{"colour": 1}]}',
        pytest.param('{"runs": [], "removed_at": []}', id="without names"),
        pytest.param(without("curves"), id="of a version without curves"),
        pytest.param(without("label"), id="of a version without labels"),
    ],
)
def test_a_file_that_is_no_report_is_refused(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"expected .*report\.json.*got.*run the study again"):
        read_report(path)


def test_a_report_of_this_version_is_read(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(without(None))
    assert read_report(path) == ([PRETRAINED], NAMES)

import dataclasses
import json

import pytest
from made_up_records import PRETRAINED, curve, record, study

from ewc_hf.study import MissingRun, RunRecord, TextNames, markdown_report, read_report, write_report
from ewc_hf.study.curves import removed_at
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


def test_markdown_shows_settings_and_removed_at():
    text = markdown_report(study(), NAMES, "A title")
    settings, crossings = tables(text)
    assert text.startswith("# A title\n")
    assert "\n## removed_at\n" in text
    assert "nats per token" in text and text.count("95% t-interval") == 2
    assert [row["name"] for row in settings] == [
        "pretrained",
        "plain",
        "fisher-loss-10",
        "fisher-loss-1000",
        "fisher-loss-3000",
        "l2-loss-0.1",
    ]
    assert settings[0] == {
        "name": "pretrained",
        "method": "pretrained",
        "seeds": "1",
        "NLL on dialogs": "5.500",
        "perplexity on dialogs": "244.69",
        "NLL on books": "4.000",
        "perplexity on books": "54.60",
        "forgetting (nats)": "0.000",
        "forgetting removed (%)": "-",
        "seconds": "60.0",
        "peak memory (MiB)": "3",
        "forgetting over documents": "-",
    }
    fisher = settings[2]
    assert fisher["method"] == "EWC (Fisher), loss"
    assert (fisher["seeds"], fisher["forgetting removed (%)"]) == ("2", "31.0 ± 63.5")  # 12.7062 * 5
    assert (fisher["NLL on books"], fisher["forgetting (nats)"]) == ("4.690 ± 0.635", "0.690 ± 0.635")
    assert crossings == [
        {
            "method": "EWC (Fisher), loss",
            "removed at +1% (%)": "37.0 ± 63.5",  # 31 + 24 / 4
            "strength at +1%": "31.6",  # 10 * 100 ** 0.25
            "removed at +2% (%)": "49.0 ± 63.5",  # 31 + 24 * 3 / 4
            "strength at +2%": "316",
            "removed at +5% (%)": "65.0 ± 31.8",  # (62.5 + 67.5) / 2
            "strength at +5%": "1730",  # sqrt(1000 * 3000)
        },
        {
            "method": "L2 to start, loss",
            "removed at +1% (%)": "-",
            "strength at +1%": "-",
            "removed at +2% (%)": "-",
            "strength at +2%": "-",
            "removed at +5% (%)": "-",
            "strength at +5%": "-",
        },
    ]


def test_an_unknown_method_shows_its_own_name_and_half_a_seed_set_a_dash():
    runs = [PRETRAINED, *curve(0, (1, 4.1, 0.5), method="replay"), record("replay", 1, 1, 4.1, 4.5)]
    settings, _ = tables(markdown_report(runs, NAMES))
    assert settings[2]["method"] == "replay, loss"
    assert settings[2]["forgetting removed (%)"] == "-"


def test_written_report_reads_back_and_leaves_nothing_else(tmp_path):
    folder = tmp_path / "a" / "b"
    paths = write_report(study(), folder, NAMES, "A title")
    write_report(study(), folder, NAMES, "A title")
    assert paths == tuple(folder / name for name in ("report.json", "report.md", "report.png"))
    assert sorted(folder.iterdir()) == sorted(paths)
    assert read_report(paths[0]) == (with_forgetting(study()), NAMES)
    assert paths[1].read_text(encoding="utf-8") == markdown_report(study(), NAMES, "A title")
    state = json.loads(paths[0].read_text())
    assert list(state) == ["names", "missing", "runs", "removed_at"]
    assert state["missing"] == []
    assert state["names"] == {"task": "dialogs", "retention": "books"}
    assert all(list(run) == [field.name for field in dataclasses.fields(RunRecord)] for run in state["runs"])
    expected = [dataclasses.asdict(row) for increase in (0.01, 0.02, 0.05) for row in removed_at(study(), increase)]
    assert state["removed_at"] == expected


def test_an_unfinished_report_says_what_is_missing(tmp_path):
    missing = [MissingRun("l2-loss-1", 0), MissingRun("plain", 2), MissingRun("l2-loss-1", 2)]
    written, text, picture = write_report(study(), tmp_path / "unfinished", NAMES, "A title", missing)
    assert json.loads(written.read_text())["missing"] == [dataclasses.asdict(run) for run in missing]
    said = "**Unfinished: 11 of 14 runs.** Missing: l2-loss-1, seed 0, 2; plain, seed 2."
    assert text.read_text().startswith(f"# A title\n\n{said}\n\n| name ")
    _, whole, drawn = write_report(study(), tmp_path / "whole", NAMES, "A title")
    assert text.read_text() == whole.read_text().replace("# A title\n", f"# A title\n\n{said}\n", 1)
    assert picture.read_bytes() != drawn.read_bytes(), "its title says so"


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


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        "{}",
        '{"runs": [{"name": "plain"}]}',
        '{"runs": [{"colour": 1}]}',
        pytest.param('{"runs": [], "removed_at": []}', id="of an earlier version"),
    ],
)
def test_a_file_that_is_no_report_is_refused(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"expected .*report\.json.*got.*run the study again"):
        read_report(path)

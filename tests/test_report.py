import dataclasses
import json
import math

import numpy as np
import pytest
from ewc_hf.records import RunRecord, mean_and_interval, removed_at, with_forgetting
from ewc_hf.report import markdown_report, read_records, write_report
from matplotlib.image import imread

FIELDS = (
    "name method coupling ewc_lambda seed dialog_nll dialog_perplexity book_nll book_perplexity "
    "forgetting forgetting_removed seconds peak_memory_bytes"
).split()


def record(method, ewc_lambda, seed, dialog_nll, book_nll, coupling="loss"):
    bare = method in ("pretrained", "plain")
    return RunRecord(
        name=method if bare else f"{method}-{coupling}-{ewc_lambda:g}",
        method=method,
        coupling=None if bare else coupling,
        ewc_lambda=ewc_lambda,
        seed=seed,
        dialog_nll=dialog_nll,
        dialog_perplexity=math.exp(dialog_nll),
        book_nll=book_nll,
        book_perplexity=math.exp(book_nll),
        seconds=60.0,
        peak_memory_bytes=3 * 2**20,
    )


PRETRAINED = record("pretrained", 0, None, 5.5, 4.0)


def curve(seed, *points, method="fisher", coupling="loss"):
    """Plain at dialog 4.0 with a forgetting of 1 nat, then a run a (lambda, dialog NLL, forgetting removed)."""
    runs = [record(method, strength, seed, nll, 5.0 - removed, coupling) for strength, nll, removed in points]
    return [record("plain", 0, seed, 4.0, 5.0), *runs]


def study():
    first = curve(0, (10, 4.02, 0.26), (1000, 4.10, 0.5), (3000, 4.30, 0.75))
    second = curve(1, (10, 4.02, 0.36), (1000, 4.10, 0.6), (3000, 4.30, 0.75))
    l2 = [record("l2", 0.1, seed, 4.06, 4.9) for seed in (0, 1)]
    return [PRETRAINED, *first, *second, *l2]


def test_record_keeps_the_field_order():
    assert [field.name for field in dataclasses.fields(RunRecord)] == FIELDS


@pytest.mark.parametrize(
    ("values", "mean", "half_width"),
    [
        ([3.0], 3.0, None),
        ([1.0, 3.0], 2.0, 12.706204736),  # t(0.975, 1) * sqrt(2) / sqrt(2)
        ([1.0, 2.0, 3.0], 2.0, 4.302652730 / math.sqrt(3)),
        ([2.0, 2.0, 2.0], 2.0, 0.0),
    ],
)
def test_mean_and_interval(values, mean, half_width):
    assert mean_and_interval(values) == (pytest.approx(mean), half_width and pytest.approx(half_width))


def test_forgetting_is_measured_from_pretrained_and_removed_from_plain_of_the_seed():
    runs = [
        PRETRAINED,
        record("plain", 0, 0, 4.0, 5.0),
        record("plain", 0, 1, 4.0, 4.5),
        record("fisher", 10, 0, 4.1, 4.25),
        record("fisher", 10, 1, 4.1, 4.25),
        record("fisher", 10, 2, 4.1, 4.25),
        record("l2", 1, 0, 4.1, 3.9),
    ]
    filled = with_forgetting(runs)
    assert [run.forgetting for run in filled] == pytest.approx([0, 1, 0.5, 0.25, 0.25, 0.25, -0.1])
    assert [run.forgetting_removed for run in filled] == [None, 0, 0, 0.75, 0.5, None, pytest.approx(1.1)]
    assert with_forgetting(filled) == filled
    assert runs[1].forgetting == 0.0


def test_nothing_can_be_removed_where_plain_forgot_nothing():
    runs = [PRETRAINED, record("plain", 0, 0, 4.0, 4.0), record("fisher", 10, 0, 5.0, 3.9)]
    assert [run.forgetting_removed for run in with_forgetting(runs)] == [None, 0.0, None]
    assert removed_at(runs, 0.01)[0].forgetting_removed is None


@pytest.mark.parametrize(
    ("points", "increase", "removed", "ewc_lambda"),
    [
        pytest.param([(10, 4.08, 0.4)], 0.01, 0.2, 5.0, id="from plain lambda is linear"),
        pytest.param([(10, 4.02, 0.2), (1000, 4.06, 0.6)], 0.01, 0.4, 100.0, id="between lambdas it is geometric"),
        pytest.param([(1000, 4.06, 0.6), (10, 4.02, 0.2)], 0.01, 0.4, 100.0, id="points are ordered by lambda"),
        pytest.param([(10, 4.04, 0.3), (30, 4.1, 0.6)], 0.01, 0.3, 10.0, id="at a point"),
        pytest.param(
            [(10, 4.08, 0.4), (30, 4.0, 0.8), (90, 4.2, 0.9)], 0.01, 0.2, 5.0, id="of two crossings the first"
        ),
        pytest.param([(10, 3.96, 0.1), (1000, 4.12, 0.5)], 0.01, 0.3, 100.0, id="after a dip below plain"),
        pytest.param([(0, 4.0, 0.0), (10, 4.08, 0.4)], 0.01, 0.2, 5.0, id="after a control with lambda 0"),
        pytest.param([(10, 4.02, 0.2)], 0.01, None, None, id="never reached"),
        pytest.param([(10, math.nan, 0.2), (30, 4.1, 0.5)], 0.01, None, None, id="across a diverged run"),
    ],
)
def test_removed_at_reads_the_crossing(points, increase, removed, ewc_lambda):
    (result,) = removed_at([PRETRAINED, *curve(0, *points)], increase)
    assert (result.method, result.coupling, result.increase, result.seeds) == ("fisher", "loss", increase, 1)
    assert result.interval is None
    assert result.forgetting_removed == (removed and pytest.approx(removed))
    assert result.ewc_lambda == (ewc_lambda and pytest.approx(ewc_lambda))


def test_removed_at_averages_over_seeds_and_keeps_curves_apart():
    runs = [
        PRETRAINED,
        *curve(0, (4, 4.04, 0.2)),
        *curve(1, (16, 4.04, 0.4)),
        *curve(0, (7, 4.04, 0.9), coupling="decoupled")[1:],
    ]
    loss, decoupled = removed_at(runs, 0.01)
    assert loss.forgetting_removed == pytest.approx(0.3)
    assert loss.interval == pytest.approx(12.706204736 * 0.1)
    assert loss.ewc_lambda == pytest.approx(8.0)  # geometric mean of 4 and 16
    assert (loss.coupling, loss.seeds) == ("loss", 2)
    assert (decoupled.coupling, decoupled.seeds) == ("decoupled", 1)
    assert decoupled.forgetting_removed == pytest.approx(0.9)


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(curve(1, (10, 4.02, 0.4)), id="a seed that never gets there"),
        pytest.param(curve(1, (10, 4.08, 0.4))[1:], id="a seed without a plain run"),
    ],
)
def test_one_seed_without_a_crossing_leaves_no_mean(second):
    (result,) = removed_at([PRETRAINED, *curve(0, (10, 4.08, 0.4)), *second], 0.01)
    assert (result.forgetting_removed, result.interval, result.ewc_lambda, result.seeds) == (None, None, None, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_and_interval([]), "at least one value.*got none.*pass"),
        (lambda: with_forgetting(study()[1:]), 'one record named "pretrained", got 0.*evaluate'),
        (lambda: with_forgetting([PRETRAINED, *study()]), 'one record named "pretrained", got 2'),
        (lambda: with_forgetting([*study(), record("plain", 0, 1, 4.0, 5.0)]), "got 2 of .'plain', None, 0, 1.*name"),
        (lambda: removed_at([*study(), study()[2]], 0.01), "got 2 of .'fisher', 'loss', 10, 0"),
        (lambda: removed_at(study(), 0.0), "positive, finite rise.*got 0.0.*0.02"),
        (lambda: removed_at(study(), math.nan), "got nan"),
        (lambda: removed_at(study(), math.inf), "got inf"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


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
    text = markdown_report(study(), "A title")
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
        "coupling": "-",
        "lambda": "0",
        "seeds": "1",
        "dialog NLL": "5.500",
        "dialog perplexity": "244.69",
        "book NLL": "4.000",
        "book perplexity": "54.60",
        "forgetting (nats)": "0.000",
        "forgetting removed (%)": "-",
        "seconds": "60.0",
        "peak memory (MiB)": "3",
    }
    fisher = settings[2]
    assert (fisher["method"], fisher["coupling"], fisher["lambda"]) == ("EWC (Fisher)", "loss", "10")
    assert (fisher["seeds"], fisher["forgetting removed (%)"]) == ("2", "31.0 ± 63.5")  # 12.7062 * 5
    assert (fisher["book NLL"], fisher["forgetting (nats)"]) == ("4.690 ± 0.635", "0.690 ± 0.635")
    assert crossings == [
        {
            "method": "EWC (Fisher)",
            "coupling": "loss",
            "removed at +1% (%)": "37.0 ± 63.5",  # 31 + 24 / 4
            "lambda at +1%": "31.6",  # 10 * 100 ** 0.25
            "removed at +2% (%)": "49.0 ± 63.5",  # 31 + 24 * 3 / 4
            "lambda at +2%": "316",
            "removed at +5% (%)": "65.0 ± 31.8",  # (62.5 + 67.5) / 2
            "lambda at +5%": "1730",  # sqrt(1000 * 3000)
        },
        {
            "method": "L2 to start",
            "coupling": "loss",
            "removed at +1% (%)": "6.7 ± 0.0",
            "lambda at +1%": "0.0667",
            "removed at +2% (%)": "-",
            "lambda at +2%": "-",
            "removed at +5% (%)": "-",
            "lambda at +5%": "-",
        },
    ]


def test_an_unknown_method_shows_its_own_name_and_half_a_seed_set_a_dash():
    runs = [PRETRAINED, *curve(0, (1, 4.1, 0.5), method="replay"), record("replay", 1, 1, 4.1, 4.5)]
    settings, _ = tables(markdown_report(runs))
    assert settings[2]["method"] == "replay"
    assert settings[2]["forgetting removed (%)"] == "-"


def test_written_report_reads_back_and_leaves_nothing_else(tmp_path):
    folder = tmp_path / "a" / "b"
    paths = write_report(study(), folder, "A title")
    write_report(study(), folder, "A title")
    assert paths == tuple(folder / name for name in ("report.json", "report.md", "report.png"))
    assert sorted(folder.iterdir()) == sorted(paths)
    assert read_records(paths[0]) == with_forgetting(study())
    assert paths[1].read_text(encoding="utf-8") == markdown_report(study(), "A title")
    state = json.loads(paths[0].read_text())
    assert list(state) == ["runs", "removed_at"]
    assert all(list(run) == FIELDS for run in state["runs"])
    expected = [dataclasses.asdict(row) for increase in (0.01, 0.02, 0.05) for row in removed_at(study(), increase)]
    assert state["removed_at"] == expected


def test_a_report_that_cannot_be_made_leaves_the_old_one(tmp_path):
    paths = write_report(study(), tmp_path)
    before = [path.read_bytes() for path in paths]
    with pytest.raises(ValueError, match="pretrained"):
        write_report(study()[1:], tmp_path)
    assert [path.read_bytes() for path in paths] == before


def test_a_failed_rename_leaves_no_temporary_and_keeps_the_old_file(tmp_path, monkeypatch):
    paths = write_report(study(), tmp_path)
    before = paths[0].read_bytes()

    def refuse(source, target):
        assert source.parent == target.parent == tmp_path
        assert source.read_bytes()
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="no space left"):
        write_report(study()[:-1], tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert paths[0].read_bytes() == before


@pytest.mark.parametrize(
    "content", ["not json", "[]", "{}", '{"runs": [{"name": "plain"}]}', '{"runs": [{"colour": 1}]}']
)
def test_a_file_that_is_no_report_is_refused(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"expected .*report\.json.*got.*write it again"):
        read_records(path)


def has_colour(picture, colour):
    """Whether 6 x 6 pixels somewhere are all of this colour, as inside a marker, not in lines and letters."""
    wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    same = np.abs(picture[..., :3] - wanted).max(-1) < 0.01
    return bool(np.lib.stride_tricks.sliding_window_view(same, (6, 6)).all((2, 3)).any())


@pytest.mark.parametrize(
    ("runs", "colours"),
    [
        pytest.param(study(), {"#0072B2": True, "#009E73": True, "#D55E00": False, "#222222": True}, id="study"),
        pytest.param([PRETRAINED], {"#0072B2": False, "#222222": False, "#666666": True}, id="pretrained only"),
        pytest.param(study()[:1] + study()[2:5], {"#0072B2": True, "#222222": False}, id="no plain run"),
        pytest.param(study()[:2], {"#0072B2": False, "#222222": True}, id="no method"),
        pytest.param(
            [*study(), *curve(2, (5, math.nan, 0.5), method="x")], {"#CC79A7": True, "#0072B2": True}, id="diverged"
        ),
    ],
)
def test_the_picture_shows_what_there_is(tmp_path, runs, colours):
    picture = imread(write_report(runs, tmp_path)[2])
    assert picture.shape[:2] == (825, 1200)
    assert {colour: has_colour(picture, colour) for colour in colours} == colours

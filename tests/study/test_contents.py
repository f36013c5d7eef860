import dataclasses

import pytest
from made_up_records import PRETRAINED, curve, record, study

from ewc_hf.study import MissingRun, TextNames
from ewc_hf.study.contents import sections, share
from ewc_hf.study.records import with_forgetting

NAMES = TextNames("dialogs", "books")


def tables(runs):
    """Heading -> the rows of its table, each {column: cell}."""
    return {
        section.heading: [dict(zip(section.table[0], row, strict=True)) for row in section.table[1:]]
        for section in sections(with_forgetting(runs), NAMES)
    }


def test_settings_are_means_over_their_seeds():
    settings = tables(study())["settings"]
    names = ["pretrained", "plain", "fisher-loss-10", "fisher-loss-1000", "fisher-loss-3000", "l2-loss-0.1"]
    assert [row["name"] for row in settings] == names
    assert settings[0] == {
        "name": "pretrained",
        "method": "pretrained",
        "needs old text": "no",
        "seeds": "1",
        "NLL on dialogs": "5.500",
        "perplexity on dialogs": "244.69",
        "NLL on books": "4.000",
        "perplexity on books": "54.60",
        "forgetting (nats)": "0.000",
        "forgetting removed (%)": "-",
        "time a step": "-",
        "peak memory": "-",
        "forgetting over documents": "-",
    }
    fisher = settings[2]
    assert fisher["method"] == "EWC (Fisher), loss"
    assert (fisher["seeds"], fisher["forgetting removed (%)"]) == ("2", "31.0 ± 63.5")  # 12.7062 * 5
    assert (fisher["NLL on books"], fisher["forgetting (nats)"]) == ("4.690 ± 0.635", "0.690 ± 0.635")


def test_curves_are_compared_at_each_increase():
    assert tables(study())["removed_at"] == [
        {
            "method": "EWC (Fisher), loss",
            "needs old text": "no",
            "removed at +1% (%)": "37.0 ± 63.5",  # 31 + 24 / 4
            "strength at +1%": "31.6",  # 10 * 100 ** 0.25
            "removed at +2% (%)": "49.0 ± 63.5",  # 31 + 24 * 3 / 4
            "strength at +2%": "316",
            "removed at +3% (%)": "57.0 ± 57.2",  # 55 + 20 / 10; 12.7062 * 4.5
            "strength at +3%": "1120",  # 1000 * 3 ** 0.1
            "removed at +5% (%)": "65.0 ± 31.8",  # (62.5 + 67.5) / 2
            "strength at +5%": "1730",  # sqrt(1000 * 3000)
        },
        {
            "method": "L2 to start, loss",
            "needs old text": "no",
            **{
                f"{what} +{x}%{unit}": "-"
                for x in (1, 2, 3, 5)
                for what, unit in (("removed at", " (%)"), ("strength at", ""))
            },
        },
    ]


def test_the_best_curve_at_the_middle_increase_comes_first():
    two_points = {
        "best at 1%": [(1, 4.0, 0.5), (2, 4.2, 0.5)],
        "never there": [(1, 4.0, 0.9), (2, 4.1, 0.9)],
        "best at 3%": [(1, 4.0, 0.3), (2, 4.2, 0.9)],
        "as never there": [(1, 4.0, 0.9)],
    }
    runs = [run for method, points in two_points.items() for run in curve(0, *points, method=method)[1:]]
    rows = tables([PRETRAINED, *curve(0), *runs])["removed_at"]
    assert [row["method"] for row in rows] == [
        f"{name}, loss" for name in ("best at 3%", *list(two_points)[:2], "as never there")
    ]
    assert (rows[0]["removed at +1% (%)"], rows[1]["removed at +1% (%)"]) == ("42.0", "50.0")


def test_what_needs_old_text_says_so():
    replay = [dataclasses.replace(run, needs_old_text=True) for run in curve(0, (1, 4.0, 0.5), method="replay")[1:]]
    shown = tables([PRETRAINED, *curve(0, (1, 4.1, 0.4)), *replay])
    needed = {"pretrained": "no", "plain": "no", "fisher-loss-1": "no", "replay-loss-1": "yes"}
    assert {row["name"]: row["needs old text"] for row in shown["settings"]} == needed
    needed = {"EWC (Fisher), loss": "no", "replay, loss": "yes"}
    assert {row["method"]: row["needs old text"] for row in shown["removed_at"]} == needed


def test_interpolated_models_have_a_table_of_their_own():
    plain, fisher = curve(0, (10, 4.1, 0.4))
    own, between = "EWC (Fisher), loss", "EWC (Fisher), loss 10, interpolated"
    runs = [
        PRETRAINED,
        dataclasses.replace(plain, curves={"plain, interpolated": 0.0}),
        record("plain", 0, 0, 4.3, 4.4, name="plain-0.5", curves={"plain, interpolated": 0.5}, fraction=0.5),
        dataclasses.replace(fisher, curves={between: 0.0, own: 10.0}),
        record("fisher", 10, 0, 4.3, 4.2, name="half", curves={between: 0.5}, fraction=0.5),
    ]
    shown = tables(runs)
    assert list(shown) == ["settings", "interpolated", "removed_at"]
    titles = {heading: [(row["name"], row["method"]) for row in shown[heading]] for heading in list(shown)[:2]}
    assert titles == {
        "settings": [("pretrained", "pretrained"), ("plain", "plain"), ("fisher-loss-10", own)],
        "interpolated": [("plain-0.5", "plain, interpolated"), ("half", between)],
    }
    assert {row["method"] for row in shown["removed_at"]} == {"plain, interpolated", own, between}
    assert list(tables(study())) == ["settings", "removed_at"]
    assert share(runs, [MissingRun("plain", 1)]) == "unfinished: 3 of 4 runs"


@pytest.mark.parametrize(
    ("own", "plain", "shown"),
    [
        pytest.param([3.0, 6.0], [2.0, 3.0], "1.75x", id="paired by seed"),  # 1.5 and 2
        pytest.param([3.0, None], [2.0, 3.0], "-", id="unknown of a seed"),
        pytest.param([3.0, 6.0], [2.0, None], "-", id="unknown of plain"),
        pytest.param([3.0, 6.0], [2.0], "-", id="without a plain run"),
    ],
)
def test_costs_are_multiples_of_plain_fine_tunings(own, plain, shown):
    runs = [PRETRAINED]
    runs += [record("plain", 0, seed, 4.0, 5.0, seconds_a_step=of_plain) for seed, of_plain in enumerate(plain)]
    runs += [record("fisher", 10, seed, 4.1, 4.5, seconds_a_step=seconds) for seed, seconds in enumerate(own)]
    runs = [dataclasses.replace(run, peak_memory_bytes=int(3 * 2**20 * (1.24 if run.curves else 1))) for run in runs]
    of_pretrained, of_plain, of_fisher = tables(runs)["settings"]
    assert of_fisher["time a step"] == shown
    assert of_fisher["peak memory"] == ("1.24x" if len(plain) == 2 else "-")
    assert of_plain["time a step"] == ("-" if None in plain else "1.00x")
    assert of_plain["peak memory"] == "1.00x"
    assert (of_pretrained["time a step"], of_pretrained["peak memory"]) == ("-", "-")


def test_runs_on_no_curve_go_by_their_method_and_half_a_seed_set_shows_a_dash():
    runs = [PRETRAINED, *curve(0, (1, 4.1, 0.5), method="replay"), record("replay", 1, 1, 4.1, 4.5)]
    runs += [record("mas", 1, 0, 4.1, 4.5, curves={}), record("magic", 1, 0, 4.1, 4.5, curves={})]
    settings = tables(runs)["settings"]
    assert [row["method"] for row in settings[2:]] == ["replay, loss", "EWC (MAS)", "magic"]
    assert settings[2]["forgetting removed (%)"] == "-"

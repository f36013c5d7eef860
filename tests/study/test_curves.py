import dataclasses
import math

import pytest
from made_up_records import PRETRAINED, curve, record, study

from ewc_hf.study.curves import curves_of, removed_at
from ewc_hf.study.records import with_forgetting


def test_nothing_can_be_removed_where_plain_forgot_nothing():
    runs = [PRETRAINED, record("plain", 0, 0, 4.0, 4.0), record("fisher", 10, 0, 5.0, 3.9)]
    assert [run.forgetting_removed for run in with_forgetting(runs)] == [None, 0.0, None]
    assert removed_at(runs, 0.01)[0].forgetting_removed is None


@pytest.mark.parametrize(
    ("points", "increase", "removed", "strength"),
    [
        pytest.param([(10, 4.08, 0.4)], 0.01, None, None, id="one strength is no curve"),
        pytest.param([(10, 4.05, 0.4), (30, 4.08, 0.6)], 0.01, None, None, id="before the smallest strength"),
        pytest.param([(10, 4.02, 0.2), (1000, 4.06, 0.6)], 0.01, 0.4, 100.0, id="between strengths it is geometric"),
        pytest.param([(1000, 4.06, 0.6), (10, 4.02, 0.2)], 0.01, 0.4, 100.0, id="points are ordered by strength"),
        pytest.param([(10, 4.04, 0.3), (30, 4.1, 0.6)], 0.01, 0.3, 10.0, id="at a point"),
        pytest.param(
            [(1, 4.02, 0.2), (100, 4.06, 0.4), (200, 4.0, 0.8), (300, 4.2, 0.9)],
            0.01,
            0.3,
            10.0,
            id="of two crossings the first",
        ),
        pytest.param(
            [(10, 4.08, 0.4), (30, 4.0, 0.8), (90, 4.2, 0.9)], 0.01, None, None, id="of which that is not measured"
        ),
        pytest.param([(10, 3.96, 0.1), (1000, 4.12, 0.5)], 0.01, 0.3, 100.0, id="after a dip below plain"),
        pytest.param([(0, 4.0, 0.0), (10, 4.08, 0.4)], 0.01, 0.2, 5.0, id="from strength 0 it is linear"),
        pytest.param([(0, 4.05, 0.1), (10, 4.08, 0.4)], 0.01, None, None, id="before strength 0"),
        pytest.param([(10, 4.02, 0.2)], 0.01, None, None, id="never reached"),
        pytest.param([(10, math.nan, 0.2), (30, 4.1, 0.5)], 0.01, None, None, id="across a diverged run"),
    ],
)
def test_removed_at_reads_the_crossing(points, increase, removed, strength):
    (result,) = removed_at([PRETRAINED, *curve(0, *points)], increase)
    assert (result.curve, result.increase, result.seeds) == ("EWC (Fisher), loss", increase, 1)
    assert result.interval is None
    assert result.forgetting_removed == (removed and pytest.approx(removed))
    assert result.strength == (strength and pytest.approx(strength))


def test_removed_at_averages_over_seeds_and_keeps_curves_apart():
    runs = [
        PRETRAINED,
        *curve(0, (4, 4.04, 0.2), (8, 4.08, 0.5)),
        *curve(1, (16, 4.04, 0.4), (32, 4.08, 0.5)),
        *curve(0, (7, 4.04, 0.9), (9, 4.08, 0.95), coupling="decoupled")[1:],
    ]
    loss, decoupled = removed_at(runs, 0.01)
    assert loss.forgetting_removed == pytest.approx(0.3)
    assert loss.interval == pytest.approx(12.706204736 * 0.1)
    assert loss.strength == pytest.approx(8.0)  # geometric mean of 4 and 16
    assert (loss.curve, loss.seeds) == ("EWC (Fisher), loss", 2)
    assert (decoupled.curve, decoupled.seeds) == ("EWC (Fisher), decoupled", 1)
    assert decoupled.forgetting_removed == pytest.approx(0.9)


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(curve(1, (10, 4.02, 0.4), (30, 4.03, 0.5)), id="a seed that never gets there"),
        pytest.param(curve(1, (10, 4.02, 0.4)), id="a seed with one strength"),
        pytest.param(curve(1, (10, 4.02, 0.4), (30, 4.08, 0.5))[1:], id="a seed without a plain run"),
    ],
)
def test_one_seed_without_a_crossing_leaves_no_mean(second):
    (result,) = removed_at([PRETRAINED, *curve(0, (10, 4.02, 0.4), (30, 4.08, 0.5)), *second], 0.01)
    assert (result.forgetting_removed, result.interval, result.strength, result.seeds) == (None, None, None, 2)


def test_the_mean_of_strengths_is_arithmetic_where_one_is_0():
    runs = [*curve(0, (0, 4.04, 0.2), (8, 4.08, 0.5)), *curve(1, (4, 4.04, 0.2), (8, 4.08, 0.5))]
    (result,) = removed_at([PRETRAINED, *runs], 0.01)
    assert result.strength == pytest.approx(2.0)


def test_a_run_may_lie_on_several_curves_and_plain_fine_tuning_on_one():
    plain, fisher = curve(0, (10, 4.02, 0.4))
    halfway = {"label": "0.5", "fraction": 0.5}
    runs = [
        record("plain", 0, 0, 4.12, 4.5, name="plain-0.5", curves={"plain, interpolated": 0.5}, **halfway),
        dataclasses.replace(plain, curves={"plain, interpolated": 0.0}),
        dataclasses.replace(fisher, curves={"Fisher": 10.0, "Fisher 10, interpolated": 0.0}),
        record("fisher", 30, 0, 4.06, 4.2, curves={"Fisher": 30.0}),
        record("fisher", 10, 0, 4.06, 4.4, name="half", curves={"Fisher 10, interpolated": 0.5}, **halfway),
    ]
    found = {title: [run.name for run in runs] for title, runs in curves_of([PRETRAINED, *runs]).items()}
    assert found == {
        "plain, interpolated": ["plain", "plain-0.5"],
        "Fisher": ["fisher-loss-10", "fisher-loss-30"],
        "Fisher 10, interpolated": ["fisher-loss-10", "half"],
    }
    read = {at.curve: (at.forgetting_removed, at.strength) for at in removed_at([PRETRAINED, *runs], 0.01)}
    assert read == {
        "plain, interpolated": (pytest.approx(0.5 / 3), pytest.approx(0.5 / 3)),
        "Fisher": (pytest.approx(0.6), pytest.approx(300**0.5)),
        "Fisher 10, interpolated": (pytest.approx(0.5), pytest.approx(0.25)),
    }


def test_runs_on_no_curve_and_a_curve_where_nothing_protects_yet_are_none():
    plain, fisher = curve(0, (10, 4.08, 0.4))
    runs = [dataclasses.replace(plain, curves={"plain, interpolated": 0.0}), dataclasses.replace(fisher, curves={})]
    assert curves_of([PRETRAINED, *runs]) == {}
    assert removed_at([PRETRAINED, *runs], 0.01) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: removed_at([*study(), study()[2]], 0.01), "got 2 of .'fisher-loss-10', 0"),
        (lambda: removed_at(study(), 0.0), "positive, finite rise.*got 0.0.*0.02"),
        (lambda: removed_at(study(), math.nan), "got nan"),
        (lambda: removed_at(study(), math.inf), "got inf"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""What a budget allows on made-up curves, and what is no budget."""

import math

import pytest

from ewc_hf.study.budget import MaxForgetting, MaxTaskLoss, farthest_point, parse_budget
from ewc_hf.study.line_points import LinePoint


def point(t, forgetting=0.0, task_nll=2.0):
    return LinePoint(t, task_nll, None, 0.0, 0.0, None, 0.0, forgetting, None)


class Curve:
    """Points of given forgetting and task NLL, counted."""

    def __init__(self, forgetting=lambda t: 0.0, task_nll=lambda t: 2.0):
        self.forgetting, self.task_nll, self.measured = forgetting, task_nll, []

    def __call__(self, t):
        self.measured.append(t)
        return point(t, self.forgetting(t), self.task_nll(t))

    def farthest(self, budget, ts=(0.0, 1.0)):
        return farthest_point(budget, [self(t) for t in ts], self)


@pytest.mark.parametrize("forgetting", [lambda t: 3 * t * t, lambda t: t - 0.02, lambda t: 50 * t**5])
@pytest.mark.parametrize("nats", [0.001, 0.05, 0.7])
def test_forgetting_comes_within_5_percent_of_the_budget_and_not_above(forgetting, nats):
    chosen = Curve(forgetting).farthest(MaxForgetting(nats))
    assert 0.95 * nats <= chosen.forgetting <= nats


@pytest.mark.parametrize("increase", [0.001, 0.02, 0.3])
def test_task_loss_comes_within_5_percent_of_the_budget_and_not_above(increase):
    chosen = Curve(task_nll=lambda t: 2 + 2 * (1 - t) ** 2).farthest(MaxTaskLoss(increase))
    assert 0.95 * increase <= chosen.task_nll / 2 - 1 <= increase


@pytest.mark.parametrize("forgetting", [lambda t: 0.5 * t * t, lambda t: 0.3 * t**2 + 0.2 * t**3])
@pytest.mark.parametrize("nats", [0.002, 0.02, 0.1, 0.4])
def test_where_the_cost_is_about_quadratic_few_points_are_measured(forgetting, nats):
    curve = Curve(forgetting)
    curve.farthest(MaxForgetting(nats))
    assert len(curve.measured) <= 2 + 3


@pytest.mark.parametrize("nats", [0.02, 0.05, 0.1])
def test_where_a_model_gets_better_first_few_points_are_measured_too(nats):
    """As on the way to a model that a penalty has held."""
    curve = Curve(lambda t: 0.5 * (1.6 * t**3 - 0.6 * t))
    assert 0.95 * nats <= curve.farthest(MaxForgetting(nats)).forgetting <= nats
    assert len(curve.measured) <= 2 + 6


def test_the_far_end_is_chosen_where_it_costs_no_more():
    for budget, curve, t in (
        (MaxForgetting(0.5), Curve(lambda t: t / 4), 1),
        (MaxTaskLoss(0.9), Curve(task_nll=lambda t: 3 - t), 0),
    ):
        assert curve.farthest(budget).t == t
        assert len(curve.measured) == 2


def test_of_points_that_are_measured_the_farthest_one_that_fits_is_where_it_begins():
    """Forgetting falls and rises again: the last rise counts."""
    curve = Curve(lambda t: 4 * abs(t - 0.6))
    chosen = curve.farthest(MaxForgetting(0.1), (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    assert 0.6 < chosen.t < 0.65
    assert 0.095 <= chosen.forgetting <= 0.1
    assert min(curve.measured[6:]) > 0.6


def test_where_the_cost_jumps_the_search_ends_with_the_last_that_fits():
    curve = Curve(lambda t: 0.01 if t < 1 / 3 else 1.0)
    chosen = curve.farthest(MaxForgetting(0.05))
    assert chosen.forgetting == 0.01
    assert chosen.t == pytest.approx(1 / 3, abs=1e-5)
    assert len(curve.measured) < 30


@pytest.mark.parametrize("sign", [1, -1])
def test_a_model_that_is_not_a_number_costs_too_much(sign):
    """Processors give it either sign."""
    chosen = Curve(lambda t: math.copysign(math.nan, sign) if t > 0.3 else t / 10).farthest(MaxForgetting(0.05))
    assert chosen.t == pytest.approx(0.3, abs=1e-4)


@pytest.mark.parametrize("written", ["+2%", "2%", "0.02", 0.02, " +2.0% ", "2e-2", "+.02"])
def test_a_percentage_is_read(written):
    assert parse_budget(None, written).max_task_loss == pytest.approx(0.02)


def test_one_is_given_or_none():
    assert parse_budget(None, None) is None
    assert parse_budget(0.05, None) == MaxForgetting(0.05)


@pytest.mark.parametrize(
    ("max_forgetting", "max_task_loss", "message"),
    [
        (0.05, "+2%", r"expected max_forgetting or max_task_loss, got both \(0.05 and \+2%\)"),
        *[(bad, None, f"positive, finite max_forgetting, got {bad}") for bad in (0, -0.1, float("nan"), float("inf"))],
        *[(None, bad, "positive, finite max_task_loss, got") for bad in ("-2%", "0%", 0, -0.02, "9e999%")],
        *[
            (None, bad, "as '\\+2%', '2%' or 0.02, got '")
            for bad in ("two", "2%%", "", "%", "2 percent", "nan", "1,5%")
        ],
        *[(None, bad, f"got '{bad}'; write '{bad}%'") for bad in ("2", 2.0, "1")],
    ],
)
def test_what_is_no_budget_is_refused(max_forgetting, max_task_loss, message):
    with pytest.raises(ValueError, match=message):
        parse_budget(max_forgetting, max_task_loss)

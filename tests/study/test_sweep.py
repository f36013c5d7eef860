"""The best lambda of a grid, its plateau, and what a study's records tell of it."""

import json

import pytest
from made_up_records import PRETRAINED, curve, study
from matplotlib.figure import Figure

from ewc_hf.study import Sweep, SweptPoint, sweep_of, sweep_table, sweeps_of, write_sweep
from ewc_hf.study.sweep_picture import _frame


def points(*pairs):
    return [SweptPoint(at, mean, interval, 3) for at, mean, interval in pairs]


@pytest.mark.parametrize(
    ("higher_is_better", "best", "plateau"), [(True, 10.0, [3.0, 10.0, 100.0]), (False, 0.0, [0.0, 1.0])]
)
def test_best_and_plateau(higher_is_better, best, plateau):
    """The plateau is by the best's interval, not by the others', and need not hang together."""
    curve = Sweep(
        "Fisher",
        "loss",
        points((0, 0.5, 0.1), (1, 0.58, 0.5), (3, 0.86, 0.01), (10, 0.9, 0.05), (30, 0.84, 0.5), (100, 0.851, 0.0)),
        higher_is_better,
    )
    assert curve.best.ewc_lambda == best
    assert [point.ewc_lambda for point in curve.plateau] == plateau


def test_one_run_has_no_plateau():
    curve = sweep_of("Fisher", "loss", {1.0: [0.5], 3.0: [0.7], 10.0: [0.69]}, higher_is_better=True)
    assert [point.interval for point in curve.points] == [None] * 3
    assert [point.ewc_lambda for point in curve.plateau] == [3.0]


def test_intervals():
    """`t(0.975, 2) * std / sqrt(3)` of three runs."""
    curve = sweep_of("Fisher", "loss", {3.0: [0.6, 0.7, 0.8], 1.0: [0.1, 0.1, 0.1]}, higher_is_better=True)
    assert [point.ewc_lambda for point in curve.points] == [1.0, 3.0]
    assert curve.best.mean == pytest.approx(0.7)
    assert curve.best.interval == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)


def test_no_scores():
    with pytest.raises(ValueError, match="expected scores of at least one lambda for 'Fisher, loss', got none"):
        sweep_of("Fisher", "loss", {}, higher_is_better=True)


def test_a_study_s_records():
    """Scored by the mean of both NLLs; plain fine-tuning is lambda 0 of each curve."""
    fisher, l2 = sweeps_of(study())
    assert (fisher.panel, fisher.title) == ("EWC (Fisher)", "loss")
    assert (l2.panel, l2.title) == ("L2 to start", "loss")
    assert [point.ewc_lambda for point in fisher.points] == [0, 10, 1000, 3000]
    assert fisher.points[0].mean == pytest.approx((4.0 + 5.0) / 2)
    assert fisher.points[1].mean == pytest.approx((4.02 + 5 - (0.26 + 0.36) / 2) / 2)
    assert fisher.best.mean == pytest.approx((4.1 + 4.45) / 2) and not fisher.higher_is_better
    assert [point.num_runs for point in l2.points] == [2, 2]


def test_other_strengths_than_lambda_are_no_sweep():
    (plain, run) = curve(0, (10, 4.02, 0.26))
    beside = run.__class__(**{**run.__dict__, "curves": {"rehearsal": 0.3}, "overrides": {"rehearsal_weight": 0.3}})
    both = {"rehearsal_weight": 3.0, "ewc_lambda": 3.0}
    twice = run.__class__(**{**run.__dict__, "curves": {"EWC 3 + rehearsal": 3.0}, "overrides": both})
    kept = {"max_forgetting": 0.1, "ewc_lambda": 3.0}
    to_a_budget = run.__class__(**{**run.__dict__, "curves": {"EWC 3, to a budget": 10.0}, "overrides": kept})
    assert sweeps_of([PRETRAINED, plain, beside, twice, to_a_budget]) == []


def test_report(tmp_path):
    sweeps = [
        sweep_of("Fisher", "loss", {0.0: [0.2, 0.3], 3.0: [0.6, 0.7], 10.0: [0.64, 0.65]}, higher_is_better=True),
        sweep_of("MAS", "loss", {1.0: [0.5]}, higher_is_better=True),
    ]
    head, fisher, mas = sweep_table(sweeps, "accuracy", 2)
    assert head == ["method", "penalty", "runs a lambda", "best lambda", "accuracy", "plateau of lambda"]
    assert fisher == ["Fisher", "loss", "2", "3", "0.65 ± 0.64", "0, 3, 10"]
    assert mas == ["MAS", "loss", "1", "1", "0.50", "1"]
    text = write_sweep(sweeps, tmp_path / "new", "Which lambda", "accuracy", references=sweeps[:1])
    assert (tmp_path / "new" / "sweep.md").read_text() == text
    assert text.startswith("# Which lambda\n")
    state = json.loads((tmp_path / "new" / "sweep.json").read_text())
    assert [point["ewc_lambda"] for point in state["sweeps"][0]["points"]] == [0.0, 3.0, 10.0]
    assert (tmp_path / "new" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["sweep.json", "sweep.md", "sweep.png"]


@pytest.mark.parametrize(("without", "shown"), [(0.63, True), (0.2, False)])
def test_a_far_lambda_0_does_not_flatten_the_curve(without, shown):
    """The plateau is what a sweep is read for."""
    sweep = sweep_of("Fisher", "loss", {0.0: [without], 3.0: [0.64], 10.0: [0.65]}, higher_is_better=True)
    axes = Figure().add_subplot()
    _frame(axes, [sweep])
    low, high = axes.get_ylim()
    assert low < 0.64 and 0.65 < high < 0.7
    assert (low < without < high) == shown
    (line,) = axes.get_lines()
    assert line.get_label() == ("lambda 0: 0.63" if shown else "lambda 0: 0.2, off the scale")

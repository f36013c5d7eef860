"""A grid in stacks: kept, gone on with, and never mixed with another."""

import json
import math

import pytest
from one_after_another import LESSONS, SIZES, perceptron, small_tasks

from ewc_hf.continual import (
    Grid,
    Lessons,
    Perceptron,
    Protection,
    Published,
    Stack,
    learn_in_turn,
    parse_rows,
    points_of,
    read_authors_curves,
    sweeps_of_runs,
    write_grid_report,
)
from ewc_hf.continual import grid as module

ROWS = parse_rows(["fisher:stabilized:1,30", "mas:plain:2"])


def grid(folder, lessons=LESSONS, stack_size=3, seeds=(0, 1)):
    return Grid(folder, points_of(ROWS, seeds), small_tasks(), lambda: Perceptron(SIZES).double(), lessons, stack_size)


def without_times(runs):
    return [(run.row, run.ewc_lambda, run.seed, run.accuracy) for run in runs]


def test_runs(tmp_path):
    runs = grid(tmp_path).run()
    expected = [("unprotected", 0.0), ("fisher:stabilized", 1.0), ("fisher:stabilized", 30.0), ("mas:plain", 2.0)]
    assert [(run.row, run.ewc_lambda, run.seed) for run in runs] == [
        (*row, seed) for row in expected for seed in (0, 1)
    ]
    (row,) = parse_rows(["fisher:stabilized:30"])
    accuracy = learn_in_turn(Stack([perceptron(1)]), small_tasks(), Protection(row, [30.0]), LESSONS, [1])
    (run,) = (run for run in runs if (run.row, run.ewc_lambda, run.seed) == ("fisher:stabilized", 30.0, 1))
    known = [[a for a in after if not math.isnan(a)] for after in accuracy[0].tolist()]
    assert run.accuracy == known
    assert run.score == pytest.approx(sum(known[-1]) / 3)


def test_interrupted(tmp_path, monkeypatch):
    """What is finished is kept, and the rest comes out as if nothing had happened."""
    expected = without_times(grid(tmp_path / "whole").run())
    learn, calls = module.learn_in_turn, []

    def interrupted(*args, **kwargs):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return learn(*args, **kwargs)

    monkeypatch.setattr(module, "learn_in_turn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grid(tmp_path / "part").run()
    kept = {path.name: path.read_bytes() for path in (tmp_path / "part" / "runs").iterdir()}
    assert len(kept) == 5, "two of the unprotected, and three of Fisher's four"
    monkeypatch.setattr(module, "learn_in_turn", learn)
    assert without_times(grid(tmp_path / "part").run()) == expected
    for name, content in kept.items():
        assert (tmp_path / "part" / "runs" / name).read_bytes() == content, "run again"


def test_stack_size_changes_nothing(tmp_path):
    assert without_times(grid(tmp_path / "1", stack_size=1).run()) == without_times(grid(tmp_path / "3").run())


def test_another_protocol(tmp_path):
    grid(tmp_path).run()
    other = Lessons(epochs=1, batch_size=10, learning_rate=1e-2, importance_examples=12)
    with pytest.raises(ValueError, match="another lessons; choose another output_dir"):
        grid(tmp_path, other).run()


def test_sweeps_and_report(tmp_path):
    runs = grid(tmp_path, seeds=(0, 1, 2)).run()
    fisher, mas = sweeps_of_runs(runs)
    assert (fisher.panel, fisher.title, mas.panel, mas.title) == ("fisher", "stabilized", "mas", "plain")
    assert [point.ewc_lambda for point in fisher.points] == [0, 1, 30]
    assert [point.ewc_lambda for point in mas.points] == [0, 2]
    assert fisher.points[0] == mas.points[0], "lambda 0 belongs to each"
    best = fisher.best
    near = {"fisher:stabilized": Published(85, best.mean + 0.5 * best.interval + 0.01, 0.01, (72, 110))}
    text = write_grid_report(runs, tmp_path, "Small", near)
    assert "| yes" in text and f"{best.mean:.4f} ± {best.interval:.4f}" in text
    assert (tmp_path / "paper.md").read_text() in text
    far = {"fisher:stabilized": Published(85, best.mean + best.interval + 0.02, 0.01, (72, 110))}
    assert "| no" in write_grid_report(runs, tmp_path, "Small", far)
    assert "paper" not in write_grid_report(runs, tmp_path / "alone", "Small")
    assert (tmp_path / "sweep.png").stat().st_size > 10_000


def test_authors_curves(tmp_path):
    points = [{"lambda_formula": 2.0, "mean": 0.9, "ci95": 0.01}, {"lambda_formula": 1.0, "mean": 0.8, "ci95": 0.02}]
    path = tmp_path / "curves.json"
    path.write_text(json.dumps({"curves": {"fc_si_stabilized": {"points": points}, "conv_mas": {"points": points}}}))
    (curve,) = read_authors_curves(str(path), "fc")
    assert (curve.panel, curve.title) == ("synaptic", "stabilized")
    assert [(point.ewc_lambda, point.mean, point.interval) for point in curve.points] == [
        (1, 0.8, 0.02),
        (2, 0.9, 0.01),
    ]
    path.write_text("{}")
    with pytest.raises(
        ValueError, match=r"expected the authors' curves in .* got a file without 'curves'; leave it out"
    ):
        read_authors_curves(str(path), "fc")

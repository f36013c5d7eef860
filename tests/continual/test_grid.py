"""A grid in stacks: kept, gone on with, and never mixed with another."""

import dataclasses
import json
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from one_after_another import LESSONS, NUM_EXAMPLES, SIZES, perceptron, small_tasks

from ewc_hf.continual import (
    ContinualRun,
    Grid,
    GridOptions,
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
from ewc_hf.continual.learning import adam_of
from ewc_hf.engines import processes

ROWS = parse_rows(["fisher:stabilized:1,30", "mas:plain:2"])


def grid(folder, lessons=LESSONS, stack_size=3, seeds=(0, 1)):
    build = partial(network, SIZES)
    return Grid(folder, points_of(ROWS, seeds), small_tasks(), build, lessons, NUM_EXAMPLES, stack_size)


def network(sizes):
    return Perceptron(sizes).double()


def without_times(runs):
    return [(run.row, run.ewc_lambda, run.seed, run.accuracy) for run in runs]


def test_runs(tmp_path):
    runs = grid(tmp_path).run()
    expected = [("unprotected", 0.0), ("fisher:stabilized", 1.0), ("fisher:stabilized", 30.0), ("mas:plain", 2.0)]
    assert [(run.row, run.ewc_lambda, run.seed) for run in runs] == [
        (*row, seed) for row in expected for seed in (0, 1)
    ]
    (row,) = parse_rows(["fisher:stabilized:30"])
    accuracy = learn_in_turn(
        Stack([perceptron(1)]), small_tasks(), Protection(row, [30.0], NUM_EXAMPLES), LESSONS, [1]
    )
    (run,) = (run for run in runs if (run.row, run.ewc_lambda, run.seed) == ("fisher:stabilized", 30.0, 1))
    known = [[a for a in after if not math.isnan(a)] for after in accuracy[0].tolist()]
    assert run.accuracy == known
    assert run.score == pytest.approx(sum(known[-1]) / 3)


@pytest.mark.parametrize("carry_optimizer", [False, True])
def test_interrupted(tmp_path, monkeypatch, carry_optimizer):
    """What is finished is kept, and the rest comes out as if nothing had happened."""
    lessons = dataclasses.replace(LESSONS, carry_optimizer=carry_optimizer)
    expected = without_times(grid(tmp_path / "whole", lessons).run())
    learn, calls = module.learn_in_turn, []

    def interrupted(*args, **kwargs):
        if len(calls) == 2 + carry_optimizer:  # of which the first is not kept
            raise KeyboardInterrupt
        calls.append(1)
        return learn(*args, **kwargs)

    monkeypatch.setattr(module, "learn_in_turn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grid(tmp_path / "part", lessons).run()
    kept = {path.name: path.read_bytes() for path in (tmp_path / "part" / "runs").iterdir()}
    assert len(kept) == 5, "two of the unprotected, and three of Fisher's four"
    monkeypatch.setattr(module, "learn_in_turn", learn)
    assert without_times(grid(tmp_path / "part", lessons).run()) == expected
    for name, content in kept.items():
        assert (tmp_path / "part" / "runs" / name).read_bytes() == content, "run again"


CARRIED = dataclasses.replace(LESSONS, carry_optimizer=True)


def test_an_optimizer_is_carried_from_run_to_run(tmp_path):
    """As one that serves them all, whose parameters get new numbers; the first run is not counted."""
    runs = grid(tmp_path, CARRIED, stack_size=1).run()
    known = {(run.row, run.ewc_lambda, run.seed): run.accuracy for run in runs}
    stack = Stack([perceptron(0)])
    optimizer = adam_of(stack, CARRIED)
    rows = [None, *ROWS]
    points = sorted(points_of(ROWS, (0, 1)), key=lambda point: (rows.index(point.row), point.seed))
    for point in [dataclasses.replace(points[0], seed=2), *points]:
        with torch.no_grad():
            for p, q in zip(stack.parameters(), Stack([perceptron(point.seed)]).parameters(), strict=True):
                p.copy_(q)
        protection = Protection(point.row, [point.ewc_lambda], NUM_EXAMPLES)
        accuracy = learn_in_turn(stack, small_tasks(), protection, CARRIED, [point.seed], optimizer=optimizer)
        expected = [[a for a in after if not math.isnan(a)] for after in accuracy[0].tolist()]
        assert known.get((point.row_name, point.ewc_lambda, point.seed), expected) == expected
    assert without_times(runs) != without_times(grid(tmp_path / "fresh", stack_size=1).run())


def test_stack_size_changes_nothing(tmp_path):
    assert without_times(grid(tmp_path / "1", stack_size=1).run()) == without_times(grid(tmp_path / "3").run())


def test_another_protocol(tmp_path):
    grid(tmp_path).run()
    other = Lessons(epochs=1, batch_size=10, learning_rate=1e-2)
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
    assert (
        "| agrees" in text
        and "Best first: fisher (the paper: the same)." in text
        and f"{best.mean:.4f} ± {best.interval:.4f}" in text
    )
    assert (tmp_path / "paper.md").read_text() in text
    far = {"fisher:stabilized": Published(85, best.mean + best.interval + 0.02, 0.01, (72, 110))}
    assert "| differs" in write_grid_report(runs, tmp_path, "Small", far)
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


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.0, "better"), (1.0, "worse")])
def test_decoupled_beside_the_better_of_the_paper_s(tmp_path, accuracy, verdict):
    (row,), seeds = parse_rows(["fisher:decoupled:3"]), [0, 1, 2]
    runs = [ContinualRun("fisher:decoupled", 3.0, seed, [[0.5 + seed / 1e3]], 1.0) for seed in seeds]
    published = {
        "fisher:plain": Published(82, -1.0, 0.01, (1, 2)),
        "fisher:stabilized": Published(85, accuracy, 0.01, (1, 2)),
        "mas:plain": Published(9, 0.5, 0.01, (1, 2)),
    }
    last = write_grid_report(runs, tmp_path, "Small", published).split("| decoupled")[-1].splitlines()[0]
    assert verdict in last and f"| {accuracy:.4f} ± 0.0100 |" in last and row.name == "fisher:decoupled"
    equal = {"fisher:plain": Published(82, 0.502, 0.01, (1, 2))}
    assert "| equal" in write_grid_report(runs, tmp_path, "Small", equal)


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "launched", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(ValueError, match="expected one process, got 2; launch with --num_processes 1"):
        grid(tmp_path / "out").run()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("rows", "seeds"), [({}, [0]), (ROWS, []), (ROWS, [1, 0, 1])])
def test_no_grid(rows, seeds):
    with pytest.raises(ValueError, match="expected rows, and seeds that come once each"):
        points_of(rows, seeds)


@pytest.mark.parametrize("options", [{"stack_size": 0}, {"importance_examples": 0}])
def test_options(options):
    with pytest.raises(ValueError, match="expected stack_size and importance_examples >= 1"):
        GridOptions(**options)


def test_no_authors_curve_of_the_network(tmp_path):
    (tmp_path / "curves.json").write_text(json.dumps({"curves": {"fc_mas": {"points": []}}}))
    with pytest.raises(ValueError, match="curves of conv_fisher"):
        read_authors_curves(str(tmp_path / "curves.json"), "conv")

"""A grid of rows, lambdas and seeds, run in stacks; finished runs are kept, and an interrupted grid goes on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import nn
from tqdm.auto import tqdm

from ..storage import fingerprint, read_json, replaced, write_json
from ..study import Sweep, keep_protocol, sweep_of
from .images import Images
from .learning import Lessons, learn_in_turn
from .protection import Protection
from .rows import Row
from .stack import Stack
from .tasks import Task

UNPROTECTED = "unprotected"
"""The row of lambda 0, which belongs to every other."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a grid; row None has no penalty, and lambda 0."""

    row: Row | None
    ewc_lambda: float
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        row = UNPROTECTED if self.row is None else self.row.name.replace(":", "-")
        return f"{row}-{self.ewc_lambda:g}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class ContinualRun:
    """What a run came to."""

    row: str
    ewc_lambda: float
    seed: int
    accuracy: list[list[float]]  # [k][j]: share of task j's test pictures told right after task k, j <= k
    seconds: float  # its share of its stack's time

    @property
    def score(self) -> float:
        """The mean accuracy over all tasks after the last one."""
        return float(np.mean(self.accuracy[-1]))


@dataclasses.dataclass
class GridOptions:
    """What protects, how often, and where it is kept."""

    rows: list[str] = dataclasses.field(
        default_factory=lambda: ["fisher:stabilized:30,100,300", "mas:stabilized:3,10,30"],
        metadata={
            "help": "METHOD:FORM:LAMBDAS; methods fisher, mas, synaptic, signal; forms plain, stabilized, decoupled."
        },
    )
    seeds: list[int] = dataclasses.field(
        default_factory=lambda: [0, 1], metadata={"help": "Each lambda runs once with each, and lambda 0 too."}
    )
    stack_size: int = dataclasses.field(default=10, metadata={"help": "Networks that are trained at once."})
    output_dir: str = dataclasses.field(
        default="out/continual", metadata={"help": "Folder of the runs and the report."}
    )
    authors: str | None = dataclasses.field(
        default=None, metadata={"help": "JSON file of the authors' curves, drawn beside one's own."}
    )


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is run, and where it is kept.

    Attributes:
        folder: of the runs.
        points: all runs.
        tasks: that each learns, in this order.
        build: makes a network, with torch's random numbers.
        lessons: how each task is learned.
        stack_size: networks at once.
    """

    folder: Path
    points: Sequence[Point]
    tasks: Sequence[Task]
    build: Callable[[], nn.Module]
    lessons: Lessons
    stack_size: int

    def run(self) -> list[ContinualRun]:
        """Run what is missing, and return all runs.

        Several processes share the stacks. The bar counts steps, so that its time left is right whatever is missing.

        Raises:
            ValueError: the folder holds runs of other tasks or lessons, or something else.
        """
        state = PartialState()
        with state.main_process_first():
            keep_protocol(self.folder, self._protocol())
        stacks = list(self._stacks())[state.process_index :: state.num_processes]
        state.wait_for_everyone()  # so that all have listed the same ones
        steps = sum(map(self.lessons.steps, self.tasks))
        total = steps * sum(map(len, stacks))
        with tqdm(total=total, desc="runs", unit="step", disable=not state.is_local_main_process) as bar:
            for points in stacks:
                bar.set_postfix_str(f"{points[0].name.rpartition('-seed')[0]} and {len(points) - 1} more")
                self._run(points, partial(bar.update, len(points)))
        state.wait_for_everyone()
        return [ContinualRun(**read_json(self._path(point))) for point in self.points]

    def _run(self, points: Sequence[Point], on_step: Callable[[], object]) -> None:
        start = time.perf_counter()
        networks = []
        with torch.random.fork_rng(devices=[]):
            for point in points:
                torch.manual_seed(point.seed)
                networks.append(self.build())
        device = self.tasks[0].train.pixels.device
        protection = Protection(points[0].row, [point.ewc_lambda for point in points])
        seeds = [point.seed for point in points]
        accuracy = learn_in_turn(Stack(networks).to(device), self.tasks, protection, self.lessons, seeds, on_step)
        seconds = (time.perf_counter() - start) / len(points)
        for point, own in zip(points, accuracy.tolist(), strict=True):
            seen = [after[: number + 1] for number, after in enumerate(own)]
            row = UNPROTECTED if point.row is None else point.row.name
            run = ContinualRun(row, point.ewc_lambda, point.seed, seen, seconds)
            self._path(point).parent.mkdir(exist_ok=True)
            with replaced(self._path(point)) as temporary:
                write_json(temporary, dataclasses.asdict(run))

    def _stacks(self) -> Iterator[list[Point]]:
        """Yield what is missing: points of one row together, and those of one seed, which see the same batches."""
        rows = dict.fromkeys(point.row for point in self.points)
        for row in rows:
            missing = [point for point in self.points if point.row == row and not self._path(point).is_file()]
            missing.sort(key=lambda point: point.seed)
            for start in range(0, len(missing), self.stack_size):
                yield missing[start : start + self.stack_size]

    def _protocol(self) -> dict[str, Any]:
        return {
            "lessons": dataclasses.asdict(self.lessons),
            "tasks": [[task.name, _content(task.train), _content(task.test)] for task in self.tasks],
            "network": str(self.build()).splitlines(),
        }

    def _path(self, point: Point) -> Path:
        return self.folder / "runs" / f"{point.name}.json"


def _content(images: Images) -> str:
    return fingerprint({"pixels": images.pixels, "labels": images.labels.float()})


def points_of(rows: Mapping[Row, Sequence[float]], seeds: Sequence[int]) -> list[Point]:
    """Return every lambda of every row with every seed, and the runs without a penalty first."""
    unprotected = [Point(None, 0.0, seed) for seed in seeds]
    return unprotected + [
        Point(row, ewc_lambda, seed) for row, lambdas in rows.items() for ewc_lambda in lambdas for seed in seeds
    ]


def sweeps_of_runs(runs: Sequence[ContinualRun]) -> list[Sweep]:
    """Return each row's curve over lambda, scored by the mean accuracy after the last task, and without a penalty."""
    scores: dict[str, dict[float, list[float]]] = {}
    for run in runs:
        scores.setdefault(run.row, {}).setdefault(run.ewc_lambda, []).append(run.score)
    without = scores.pop(UNPROTECTED, {})
    sweeps = []
    for row, of_row in scores.items():
        method, form = row.split(":")
        sweeps.append(sweep_of(method, form, {**without, **of_row}, higher_is_better=True))
    return sweeps

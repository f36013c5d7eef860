"""A grid of rows, lambdas and seeds, run in stacks; finished runs are kept, and an interrupted grid goes on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..engines import require_one_process
from ..storage import fingerprint, json_bytes, read_json, write_files
from ..study import keep_protocol
from .carried import CarriedAdam
from .images import Images
from .learning import Lessons, adam_of, learn_in_turn
from .protection import Protection
from .runs import ContinualRun, Point
from .stack import Stack
from .tasks import Task


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
    importance_examples: int = dataclasses.field(
        default=5000, metadata={"help": "Last training pictures of a task, on which importance is estimated."}
    )
    stack_size: int = dataclasses.field(default=10, metadata={"help": "Networks that are trained at once."})
    output_dir: str = dataclasses.field(
        default="out/continual", metadata={"help": "Folder of the runs and the report."}
    )
    authors: str | None = dataclasses.field(
        default=None, metadata={"help": "JSON file of the authors' curves, drawn beside one's own."}
    )

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: one is not positive.
        """
        if self.stack_size < 1 or self.importance_examples < 1:
            numbers = f"{self.stack_size} and {self.importance_examples}"
            raise ValueError(f"expected stack_size and importance_examples >= 1, got {numbers}")


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is run, and where it is kept.

    Attributes:
        folder: of the runs.
        points: all runs.
        tasks: that each learns, in this order.
        build: makes a network, with torch's random numbers.
        lessons: how each task is learned.
        num_examples: last training pictures of a task, on which importance is estimated.
        stack_size: networks at once.
    """

    folder: Path
    points: Sequence[Point]
    tasks: Sequence[Task]
    build: Callable[[], nn.Module]
    lessons: Lessons
    num_examples: int
    stack_size: int

    def run(self) -> list[ContinualRun]:
        """Run what is missing, and return all runs.

        The bar counts steps, so that its time left is right whatever is missing.

        Raises:
            ValueError: several processes, a folder that holds runs of other tasks or lessons, or a network that
                diverged.
        """
        require_one_process()
        keep_protocol(self.folder, self._protocol())
        stacks, carried = list(self._stacks()), CarriedAdam(self.folder / "optimizer.safetensors")
        warm_up = self._warm_up(stacks, carried)
        steps = sum(map(self.lessons.steps, self.tasks))
        with tqdm(total=steps * sum(map(len, [warm_up, *stacks])), desc="runs", unit="step") as bar:
            if warm_up:
                bar.set_postfix_str("a first run, for the state that it leaves to Adam")
                self._learn(warm_up, partial(bar.update, len(warm_up)), carried)
            for points in stacks:
                bar.set_postfix_str(f"{points[0].name.rpartition('-seed')[0]} and {len(points) - 1} more")
                self._run(points, partial(bar.update, len(points)), carried)
        return [ContinualRun(**read_json(self._path(point))) for point in self.points]

    def _warm_up(self, stacks: Sequence[list[Point]], carried: CarriedAdam) -> list[Point]:
        """Return first runs, which are not kept, where Adam's state goes from run to run and nobody has left one."""
        if not self.lessons.carry_optimizer or carried.is_known or not stacks:
            return []
        unused = 1 + max(point.seed for point in self.points)
        return [dataclasses.replace(point, seed=unused) for point in stacks[0]]

    def _learn(self, points: Sequence[Point], on_step: Callable[[], object], carried: CarriedAdam) -> Tensor:
        lambdas, seeds = [point.ewc_lambda for point in points], [point.seed for point in points]
        protection = Protection(points[0].row, lambdas, self.num_examples)
        stack = build_stack(self.build, seeds, self.tasks[0].train.pixels.device)
        optimizer = adam_of(stack, self.lessons)
        if self.lessons.carry_optimizer and carried.is_known:
            carried.give(optimizer, stack)
        accuracy = learn_in_turn(stack, self.tasks, protection, self.lessons, seeds, on_step, optimizer)
        if self.lessons.carry_optimizer:
            carried.keep(optimizer, stack)
        return accuracy

    def _run(self, points: Sequence[Point], on_step: Callable[[], object], carried: CarriedAdam) -> None:
        start = time.perf_counter()
        accuracy = self._learn(points, on_step, carried)
        seconds = (time.perf_counter() - start) / len(points)
        for point, own in zip(points, accuracy.tolist(), strict=True):
            seen = [after[: number + 1] for number, after in enumerate(own)]
            run = ContinualRun(point.row_name, point.ewc_lambda, point.seed, seen, seconds)
            path = self._path(point)
            write_files(path.parent, {path.name: json_bytes(dataclasses.asdict(run))})

    def _stacks(self) -> Iterator[list[Point]]:
        """Yield what is missing: points of one row together, and those of one seed, which see the same batches."""
        for row in dict.fromkeys(point.row for point in self.points):
            missing = [point for point in self.points if point.row == row and not self._path(point).is_file()]
            missing.sort(key=lambda point: point.seed)
            for start in range(0, len(missing), self.stack_size):
                yield missing[start : start + self.stack_size]

    def _protocol(self) -> dict[str, Any]:
        pictures = {id(images): images for task in self.tasks for images in (task.train, task.test)}
        network = build_stack(self.build, [0], torch.device("cpu")).network
        return {
            "lessons": dataclasses.asdict(self.lessons),
            "importance_examples": self.num_examples,
            "pictures": [_content(images) for images in pictures.values()],
            "tasks": [[task.name, _content(_as_seen(task))] for task in self.tasks],
            "network": fingerprint(dict(network.named_parameters())),
        }

    def _path(self, point: Point) -> Path:
        return self.folder / "runs" / f"{point.name}.json"


def build_stack(build: Callable[[], nn.Module], seeds: Sequence[int], device: torch.device) -> Stack:
    """Return a stack of networks, each as it is built with a seed of torch's random numbers."""
    networks = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            networks.append(build())
    return Stack(networks).to(device)


def _as_seen(task: Task) -> Images:
    few = task.train.first(10)
    return Images(task.seen(few.pixels), few.labels)


def _content(images: Images) -> str:
    return fingerprint({"pixels": images.pixels, "labels": images.labels.float()})

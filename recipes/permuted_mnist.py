"""Learn permuted MNIST task by task, protected in many ways: the fully connected network of Kutalev & Lapina 2021.

accelerate launch recipes/permuted_mnist.py --config recipes/permuted_mnist.yaml --train mnist_train.npz \
    --test mnist_test.npz

The YAML file has the paper's grid. Without it, and without pictures, scikit-learn's digits are learned in about a
minute. Finished runs are kept in the output folder, so the same command goes on where it was interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from accelerate import PartialState

from ewc_hf.cli import parse_arguments
from ewc_hf.continual import (
    Grid,
    Lessons,
    Perceptron,
    digits,
    parse_rows,
    permuted_tasks,
    points_of,
    read_images,
    sweeps_of_runs,
)
from ewc_hf.study import write_sweep


@dataclass
class PermutedArguments:
    """What is learned, and what protects."""

    train: str | None = field(
        default=None,
        metadata={"help": "Pictures to learn: .npz, MNIST's idx3-ubyte, or a Hub id; default scikit-learn's digits."},
    )
    test: str | None = field(default=None, metadata={"help": "Pictures to test on: likewise."})
    rows: list[str] = field(
        default_factory=lambda: ["fisher:stabilized:30,100,300", "mas:stabilized:3,10,30"],
        metadata={
            "help": "METHOD:FORM:LAMBDAS; methods fisher, mas, synaptic, signal; forms plain, stabilized, decoupled."
        },
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1], metadata={"help": "Each lambda runs once with each."})
    num_tasks: int = field(
        default=10, metadata={"help": "The pictures as they are, and permutations of their pixels."}
    )
    hidden: list[int] = field(default_factory=lambda: [300, 150], metadata={"help": "Sizes of the hidden layers."})
    stack_size: int = field(default=10, metadata={"help": "Networks that are trained at once."})
    output_dir: str = field(default="out/permuted_mnist", metadata={"help": "Folder of the runs and the report."})


def main() -> None:
    """Run the grid, and write its curves."""
    args, lessons = parse_arguments(PermutedArguments, Lessons, description=__doc__)

    # 1. The tasks, on the device that learns them.
    train, test = (
        digits(split) if source is None else read_images(source, split)
        for source, split in ((args.train, "train"), (args.test, "test"))
    )
    device = PartialState().device
    tasks = permuted_tasks(train.to(device), test.to(device), args.num_tasks)
    build = partial(Perceptron, (train.pixels[0].numel(), *args.hidden, int(train.labels.max()) + 1))

    # 2. All runs, in stacks.
    points = points_of(parse_rows(args.rows), args.seeds)
    runs = Grid(Path(args.output_dir), points, tasks, build, lessons, args.stack_size).run()

    # 3. The curves over lambda.
    if PartialState().is_main_process:
        title = f"{args.num_tasks} tasks of permuted pictures"
        print(write_sweep(sweeps_of_runs(runs), Path(args.output_dir), title, "mean accuracy", decimals=4))


if __name__ == "__main__":
    main()

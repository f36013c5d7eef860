r"""Learn permuted MNIST task by task, protected in many ways: the fully connected network of Kutalev & Lapina 2021.

accelerate launch recipes/permuted_mnist.py --config recipes/permuted_mnist.yaml \
    --train mnist_train.npz --test mnist_test.npz

The YAML file has the paper's grid, which takes hours. In under two minutes, on scikit-learn's digits:

accelerate launch recipes/permuted_mnist.py --config recipes/permuted_mnist_quick.yaml

Finished runs are kept in the output folder, so the same command goes on where it was interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ewc_hf.cli import parse_arguments
from ewc_hf.continual import (
    PERMUTED,
    Grid,
    GridOptions,
    Lessons,
    Perceptron,
    num_classes,
    parse_rows,
    permuted_tasks,
    points_of,
    read_authors_curves,
    read_train_and_test,
    write_grid_report,
)
from ewc_hf.engines import launched


@dataclass
class PermutedArguments:
    """What is learned."""

    train: str | None = field(
        default=None,
        metadata={"help": "Pictures to learn: .npz, MNIST's idx3-ubyte, or a Hub id; default scikit-learn's digits."},
    )
    test: str | None = field(default=None, metadata={"help": "Pictures to test on: likewise."})
    num_tasks: int = field(default=10, metadata={"help": "The pictures, and random permutations of their pixels."})
    hidden: list[int] = field(default_factory=lambda: [300, 150], metadata={"help": "Sizes of the hidden layers."})


def main() -> None:
    """Run the grid, and write its curves."""
    args, options, lessons = parse_arguments(PermutedArguments, GridOptions, Lessons, description=__doc__)
    points = points_of(parse_rows(options.rows), options.seeds)
    authors = [] if options.authors is None else read_authors_curves(options.authors, "fc")
    folder, device = Path(options.output_dir), launched().device

    # 1. The tasks, on the device that learns them.
    train, test = read_train_and_test(args.train, args.test)
    tasks = permuted_tasks(train.to(device), test.to(device), args.num_tasks)
    build = partial(Perceptron, (train.pixels[0].numel(), *args.hidden, num_classes(train, test)))

    # 2. All runs, in stacks.
    runs = Grid(folder, points, tasks, build, lessons, options.importance_examples, options.stack_size).run()

    # 3. The curves over lambda and, of the paper's protocol, what the paper reports.
    as_the_paper = PermutedArguments(args.train, args.test) == args and lessons.are_the_papers and len(train) == 60_000
    published = PERMUTED if as_the_paper and options.importance_examples == 5000 else None
    print(write_grid_report(runs, folder, f"Permuted pictures, {args.num_tasks} tasks", published, authors))


if __name__ == "__main__":
    main()

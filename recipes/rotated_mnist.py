r"""Learn MNIST and Fashion-MNIST, and both turned by 90 degrees: the convolutions of Kutalev & Lapina 2021.

accelerate launch recipes/rotated_mnist.py --config recipes/rotated_mnist.yaml \
    --train mnist_train.npz --test mnist_test.npz \
    --second_train fashion_mnist_train.npz --second_test fashion_mnist_test.npz

The YAML file has the paper's protocol, which takes long on a CPU; rotated_mnist_reduced.yaml has fewer pictures and
epochs. In under two minutes, on scikit-learn's digits and their negatives:

accelerate launch recipes/rotated_mnist.py --config recipes/rotated_mnist_quick.yaml

Finished runs are kept in the output folder, so the same command goes on where it was interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ewc_hf.cli import parse_arguments
from ewc_hf.continual import (
    ROTATED,
    ConvNet,
    Grid,
    GridOptions,
    Images,
    Lessons,
    num_classes,
    parse_rows,
    points_of,
    read_authors_curves,
    read_train_and_test,
    rotated_tasks,
    write_grid_report,
)
from ewc_hf.engines import launched


@dataclass
class RotatedArguments:
    """What is learned."""

    train: str | None = field(
        default=None,
        metadata={"help": "Pictures to learn: .npz, MNIST's idx3-ubyte, or a Hub id; default scikit-learn's digits."},
    )
    test: str | None = field(default=None, metadata={"help": "Pictures to test on: likewise."})
    second_train: str | None = field(
        default=None, metadata={"help": "Other pictures of one size with these; default their negatives."}
    )
    second_test: str | None = field(default=None, metadata={"help": "Other pictures to test on."})
    num_train: int | None = field(default=None, metadata={"help": "Learn the first ones only."})
    num_test: int | None = field(default=None, metadata={"help": "Test on the first ones only."})
    channels: list[int] = field(default_factory=lambda: [64, 128, 256], metadata={"help": "Of the convolutions."})


def main() -> None:
    """Run the grid, and write its curves."""
    args, options, lessons = parse_arguments(RotatedArguments, GridOptions, Lessons, description=__doc__)
    points = points_of(parse_rows(options.rows), options.seeds)
    authors = [] if options.authors is None else read_authors_curves(options.authors, "conv")
    folder, device = Path(options.output_dir), launched().device

    # 1. The tasks, on the device that learns them.
    first = read_train_and_test(args.train, args.test, scale=2)
    second = tuple(Images(1 - images.pixels, images.labels) for images in first)
    if args.second_train is not None or args.second_test is not None:
        second = read_train_and_test(args.second_train, args.second_test)
    sizes = {images.pixels.shape[1:] for images in (*first, *second)}
    if len(sizes) > 1 or len(set(*sizes)) > 1:
        raise ValueError(f"expected square pictures of one size, got {[tuple(size) for size in sizes]}; crop them")
    tasks = rotated_tasks(
        *((a.first(args.num_train).to(device), b.first(args.num_test).to(device)) for a, b in (first, second))
    )
    build = partial(ConvNet, first[0].pixels.shape[-1], tuple(args.channels), num_classes(*first, *second))

    # 2. All runs, in stacks.
    runs = Grid(folder, points, tasks, build, lessons, options.importance_examples, options.stack_size).run()

    # 3. The curves over lambda and, of the paper's protocol, what the paper reports.
    named = RotatedArguments(args.train, args.test, args.second_train, args.second_test)
    as_the_paper = (
        named == args and args.second_train is not None and lessons.are_the_papers and len(first[0]) == 60_000
    )
    title = "Two kinds of pictures, turned" + ("" if as_the_paper else ", a reduced protocol")
    print(write_grid_report(runs, folder, title, ROTATED if as_the_paper else None, authors))


if __name__ == "__main__":
    main()

"""Learn MNIST and Fashion-MNIST, and both turned by 90 degrees: the convolutions of Kutalev & Lapina 2021.

accelerate launch recipes/rotated_mnist.py --config recipes/rotated_mnist.yaml \
    --train mnist_train.npz --test mnist_test.npz \
    --second_train fashion_mnist_train.npz --second_test fashion_mnist_test.npz

The YAML file has the paper's protocol, of which a run takes about 40 minutes on two cores: --num_train, --num_test and
--epochs shorten it. In under two minutes, on scikit-learn's digits and their negatives:

accelerate launch recipes/rotated_mnist.py --config recipes/rotated_mnist_quick.yaml

Finished runs are kept in the output folder, so the same command goes on where it was interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from accelerate import PartialState

from ewc_hf.cli import parse_arguments
from ewc_hf.continual import (
    ROTATED,
    ConvNet,
    Grid,
    GridOptions,
    Images,
    Lessons,
    digits,
    parse_rows,
    points_of,
    read_authors_curves,
    read_images,
    rotated_tasks,
    write_grid_report,
)


@dataclass
class RotatedArguments:
    """What is learned."""

    train: str | None = field(
        default=None,
        metadata={"help": "Pictures to learn: .npz, MNIST's idx3-ubyte, or a Hub id; default scikit-learn's digits."},
    )
    test: str | None = field(default=None, metadata={"help": "Pictures to test on: likewise."})
    second_train: str | None = field(default=None, metadata={"help": "Other pictures of as many classes to learn."})
    second_test: str | None = field(default=None, metadata={"help": "Other pictures to test on."})
    num_train: int | None = field(default=None, metadata={"help": "Use the first ones only."})
    num_test: int | None = field(default=None, metadata={"help": "Use the first ones only."})
    channels: list[int] = field(default_factory=lambda: [64, 128, 256], metadata={"help": "Of the convolutions."})


def main() -> None:
    """Run the grid, and write its curves."""
    args, options, lessons = parse_arguments(RotatedArguments, GridOptions, Lessons, description=__doc__)
    rows = parse_rows(options.rows)
    authors = [] if options.authors is None else read_authors_curves(options.authors, "conv")
    state, folder = PartialState(), Path(options.output_dir)

    # 1. The tasks, on the device that learns them.
    first, second = _pairs(args)
    tasks = rotated_tasks(*([images.to(state.device) for images in pair] for pair in (first, second)))
    build = partial(ConvNet, first[0].pixels.shape[-1], tuple(args.channels), int(first[0].labels.max()) + 1)

    # 2. All runs, in stacks.
    runs = Grid(folder, points_of(rows, options.seeds), tasks, build, lessons, options.stack_size).run()

    # 3. The curves over lambda, and what the paper reports.
    if state.is_main_process:
        whole = args.train is not None and args.num_train is None
        print(write_grid_report(runs, folder, "Two kinds of pictures, turned", ROTATED if whole else None, authors))


def _pairs(args: RotatedArguments) -> list[tuple[Images, Images]]:
    """Return (train, test) of both kinds of pictures."""
    numbers = {"train": args.num_train, "test": args.num_test}
    pairs = []
    for sources in ((args.train, args.test), (args.second_train, args.second_test)):
        read = [
            digits(split, scale=2) if source is None else read_images(source, split)
            for split, source in zip(numbers, sources, strict=True)
        ]
        if sources == (args.second_train, args.second_test) and args.second_train is None:
            read = [Images(1 - images.pixels, images.labels) for images in read]
        pairs.append(tuple(images.first(number) for images, number in zip(read, numbers.values(), strict=True)))
    return pairs


if __name__ == "__main__":
    main()

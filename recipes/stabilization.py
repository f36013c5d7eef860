"""Show what stabilization is for: section 3 of Kutalev & Lapina 2021, in three pictures and two tables.

accelerate launch recipes/stabilization.py --train mnist_train.npz --test mnist_test.npz --epochs 1 \
    --model gpt2 --text books_train.parquet

1. spread.png: importance is spread over many powers of ten, so that no lambda suits all weights.
2. paths.png: how far a second task leads the weights, and what is known of both tasks, over lambda.
3. norm.png: the share of the gradient's norm that saturated weights take from all others, where it is clipped.

Without pictures, scikit-learn's digits are learned in under two minutes; a language model may be left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM, AutoTokenizer

from ewc_hf import estimate_importance
from ewc_hf.cli import parse_arguments
from ewc_hf.continual import (
    ConvNet,
    Form,
    Lessons,
    Perceptron,
    Protection,
    Row,
    Stack,
    digits,
    follow_paths,
    last_pictures,
    learn_in_turn,
    permuted_tasks,
    read_images,
    spread_by_kind,
    write_stabilization,
)
from ewc_hf.data import load_texts, pack
from ewc_hf.engines import place
from ewc_hf.importance import Method


@dataclass
class StabilizationArguments:
    """What is learned, and over which lambdas."""

    train: str | None = field(
        default=None,
        metadata={"help": "Pictures to learn: .npz, MNIST's idx3-ubyte, or a Hub id; default scikit-learn's digits."},
    )
    test: str | None = field(default=None, metadata={"help": "Pictures to test on: likewise."})
    model: str | None = field(default=None, metadata={"help": "A causal language model, for the spread."})
    text: str | None = field(default=None, metadata={"help": "Text like its pretraining text."})
    method: Method = field(default=Method.FISHER, metadata={"help": "Whose importance: fisher, mas or signal."})
    lambdas: list[float] = field(
        default_factory=lambda: [10.0**power for power in range(-1, 9)], metadata={"help": "From weak to absurd."}
    )
    sgd_learning_rate: float = field(default=0.1, metadata={"help": "Of SGD; Adam's is --learning_rate."})
    hidden: list[int] = field(default_factory=lambda: [300, 150], metadata={"help": "Sizes of the hidden layers."})
    channels: list[int] = field(default_factory=lambda: [64, 128, 256], metadata={"help": "Of the convolutions."})
    num_examples: int = field(default=512, metadata={"help": "Blocks of text that importance is estimated on."})
    block_size: int = field(default=128, metadata={"help": "Tokens a block."})
    output_dir: str = field(default="out/stabilization", metadata={"help": "Folder of pictures and tables."})


def main() -> None:
    """Measure, draw, and print the tables."""
    args, lessons = parse_arguments(StabilizationArguments, Lessons, description=__doc__)
    method, device = Method(args.method), PartialState().device
    train, test = (
        digits(split, scale=2) if source is None else read_images(source, split)
        for source, split in ((args.train, "train"), (args.test, "test"))
    )
    tasks, num_classes = permuted_tasks(train.to(device), test.to(device), 2), int(train.labels.max()) + 1
    torch.manual_seed(0)
    perceptron = Perceptron((train.pixels[0].numel(), *args.hidden, num_classes))
    convolutions = ConvNet(train.pixels.shape[-1], tuple(args.channels), num_classes)

    # 1. The spread of importance in each kind of layer.
    spreads = {}
    for name, network in (("perceptron", perceptron), ("convolutions", convolutions)):
        stack, known = Stack([network]).to(device), Protection(Row(method, Form.PLAIN), [1.0])
        learn_in_turn(stack, tasks[:1], known, lessons, [0])
        known.remember(stack, last_pictures(tasks[0], lessons))
        spreads[name] = spread_by_kind(known.consolidation.importance)
    if args.model is not None:
        model = place(AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32))
        blocks = pack(load_texts(args.text), AutoTokenizer.from_pretrained(args.model), args.block_size)
        importance = estimate_importance(model, blocks, method, num_examples=args.num_examples).importance
        spreads[Path(args.model).name] = spread_by_kind(importance)

    # 2. Where a second task leads over lambda, and 3. who takes the norm of the gradient meanwhile.
    adam = partial(torch.optim.Adam, lr=lessons.learning_rate)
    optimizers = {
        "SGD": (partial(torch.optim.SGD, lr=args.sgd_learning_rate), None),
        "Adam": (adam, None),
        "Adam, clipped at 1": (adam, 1.0),
    }
    paths = {
        name: {
            form.value: follow_paths(perceptron, tasks, Row(method, form), args.lambdas, lessons, make, max_grad_norm)
            for form in Form
        }
        for name, (make, max_grad_norm) in optimizers.items()
    }
    print(write_stabilization(Path(args.output_dir), spreads, paths))


if __name__ == "__main__":
    main()

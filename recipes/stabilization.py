r"""Show what stabilization is for: section 3 of Kutalev & Lapina 2021, in three pictures and two tables.

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
from tqdm.auto import tqdm

from ewc_hf import estimate_importance
from ewc_hf.cli import parse_arguments
from ewc_hf.continual import (
    ConvNet,
    Form,
    Lessons,
    Perceptron,
    Protection,
    Row,
    build_stack,
    follow_paths,
    learn_in_turn,
    num_classes,
    permuted_tasks,
    read_train_and_test,
    spread_by_kind,
    write_stabilization,
)
from ewc_hf.data import load_texts, pack
from ewc_hf.engines import launched, place, require_one_process
from ewc_hf.importance import Method
from ewc_hf.storage import load_causal_lm, load_tokenizer


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
    importance_examples: int = field(default=5000, metadata={"help": "Last pictures that importance is estimated on."})
    num_examples: int = field(default=512, metadata={"help": "Blocks of text that importance is estimated on."})
    block_size: int = field(default=128, metadata={"help": "Tokens a block."})
    output_dir: str = field(default="out/stabilization", metadata={"help": "Folder of pictures and tables."})


def main() -> None:
    """Measure, draw, and print the tables."""
    args, lessons = parse_arguments(StabilizationArguments, Lessons, description=__doc__)
    require_one_process()
    method, lambdas, device = Method(args.method), sorted(args.lambdas), launched().device
    if method in (Method.L2, Method.SYNAPTIC):
        raise ValueError(f"expected an importance that is estimated on pictures, got '{method.value}'; take fisher")
    if (args.model is None) != (args.text is None):
        raise ValueError(f"expected a language model and its text, got '{args.model}' and '{args.text}'; name both")
    train, test = read_train_and_test(args.train, args.test, scale=2)
    tasks, classes = permuted_tasks(train.to(device), test.to(device), 2), num_classes(train, test)
    networks = {
        "perceptron": partial(Perceptron, (train.pixels[0].numel(), *args.hidden, classes)),
        "convolutions": partial(ConvNet, train.pixels.shape[-1], tuple(args.channels), classes),
    }

    # 1. The spread of importance in each kind of layer.
    spreads, learned = {}, {}
    for name, build in networks.items():
        stack, known = (
            build_stack(build, [0], device),
            Protection(Row(method, Form.PLAIN), [1.0], args.importance_examples),
        )
        with tqdm(total=lessons.steps(tasks[0]), desc=name, unit="step") as bar:
            learn_in_turn(stack, tasks[:1], known, lessons, [0], bar.update)
        known.remember(stack, tasks[0])
        learned[name], spreads[name] = (stack, known), spread_by_kind(known.consolidation.importance)
    if args.model is not None:
        model = place(load_causal_lm(args.model))
        blocks = pack(load_texts(args.text), load_tokenizer(args.model), args.block_size)
        importance = estimate_importance(model, blocks, method, num_examples=args.num_examples).importance
        spreads[Path(args.model).name] = spread_by_kind(importance)

    # 2. Where a second task leads over lambda, and 3. who takes the norm of the gradient meanwhile.
    sgd = partial(torch.optim.SGD, lr=args.sgd_learning_rate)
    adam = partial(torch.optim.Adam, lr=lessons.learning_rate)
    optimizers = {
        "SGD": (sgd, None),
        "SGD, clipped at 1": (sgd, 1.0),
        "Adam": (adam, None),
        "Adam, clipped at 1": (adam, 1.0),
    }
    paths = {name: {} for name in optimizers}
    for name, (optimize, norm) in tqdm(optimizers.items(), desc="a second task", unit="optimizer"):
        for form in Form:
            row = Row(method, form)
            paths[name][form.value] = follow_paths(
                *learned["perceptron"], tasks, row, lambdas, lessons, optimize, norm
            )
    print(write_stabilization(Path(args.output_dir), spreads, paths))


if __name__ == "__main__":
    main()

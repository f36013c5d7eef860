"""Prune a model by several criteria, and measure what it loses.

A language model, by its NLL on held-out text:

accelerate launch recipes/pruning.py --model gpt2 --text books_train.parquet --text_test books_test.parquet --most 0.6

The fully connected network of Kutalev & Lapina 2021, by its accuracy on the pictures that it learned:

accelerate launch recipes/pruning.py --train mnist_train.npz --test mnist_test.npz --seeds 0 1 2 3 4 5 6 7 8 9

With neither, scikit-learn's digits take the pictures' place.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from ewc_hf import estimate_importance, evaluate_perplexity
from ewc_hf.cli import parse_arguments
from ewc_hf.continual import (
    Form,
    Images,
    Lessons,
    Perceptron,
    Protection,
    Row,
    Stack,
    Task,
    build_stack,
    learn_in_turn,
    measured_accuracy,
    num_classes,
    permuted_tasks,
    read_train_and_test,
    write_pruning_beside_paper,
)
from ewc_hf.data import document_texts, load_texts, pack
from ewc_hf.engines import launched, place, require_one_process
from ewc_hf.importance import Method, PruningScope, prune_weights
from ewc_hf.storage import load_causal_lm, load_tokenizer
from ewc_hf.study import ESTIMATED, MAGNITUDE, Degradation, write_degradation


@dataclass
class PruningArguments:
    """What is pruned, and how far."""

    scope: PruningScope = field(
        default=PruningScope.NETWORK, metadata={"help": "'network' or 'layer': among which weights one chooses."}
    )
    step: float = field(default=0.05, metadata={"help": "From one share of pruned weights to the next."})
    most: float = field(default=1.0, metadata={"help": "The largest share."})
    seeds: list[int] = field(
        default_factory=lambda: [0, 1, 2], metadata={"help": "Of the networks, or of the text's sample: a run each."}
    )
    output_dir: str = field(default="out/pruning", metadata={"help": "Folder of the report."})


@dataclass
class TextArguments:
    """Which language model, and the text that measures it."""

    model: str | None = field(default=None, metadata={"help": "A causal language model: a folder or a Hub id."})
    text: str | None = field(default=None, metadata={"help": "Text like its pretraining text, for the importance."})
    text_test: str | None = field(default=None, metadata={"help": "Held-out text like it."})
    num_examples: int = field(default=512, metadata={"help": "Blocks of text that importance is estimated on."})
    block_size: int = field(default=128, metadata={"help": "Tokens a block."})
    max_documents: int = field(default=200, metadata={"help": "Documents that the blocks are sampled from."})
    max_test_documents: int = field(default=40, metadata={"help": "Held-out documents."})
    max_document_tokens: int | None = field(default=None, metadata={"help": "Cut them after so many tokens."})


@dataclass
class PictureArguments:
    """Which pictures, and the network that learns them."""

    train: str | None = field(default=None, metadata={"help": "Pictures to learn; default scikit-learn's digits."})
    test: str | None = field(default=None, metadata={"help": "Pictures to test on, and to estimate importance on."})
    hidden: list[int] = field(default_factory=lambda: [300, 150], metadata={"help": "Sizes of the hidden layers."})


def main() -> None:
    """Prune, measure and write the report."""
    args, text, pictures, lessons = parse_arguments(
        PruningArguments, TextArguments, PictureArguments, Lessons, description=__doc__
    )
    require_one_process()
    if not 0 < args.step <= args.most <= 1:
        raise ValueError(f"expected 0 < step <= most <= 1, got {args.step} and {args.most}")
    sparsities = [round(number * args.step, 9) for number in range(int(args.most / args.step + 1e-9) + 1)]
    if text.model is None:
        if text.text is not None or text.text_test is not None:
            raise ValueError("expected a language model beside text, got none; name --model, or leave the text out")
        train, test = read_train_and_test(pictures.train, pictures.test)
        curves = prune_perceptrons(args, pictures.hidden, train, test, lessons, sparsities)
        score, title = "accuracy", "Pruned perceptron"
    else:
        if text.text is None or text.text_test is None or pictures.train is not None:
            raise ValueError("expected --text and --text_test beside --model, and no pictures; name them")
        curves = prune_language_model(args, text, sparsities)
        score, title = "NLL (nats per token)", f"Pruned {Path(text.model).name}"
    shown = [share for share in sparsities if share in (0, 0.2, 0.4, 0.6, 0.8, 0.9)]
    print(write_degradation(curves, Path(args.output_dir), title, score, shown))
    as_the_paper = pictures == PictureArguments(pictures.train, pictures.test) and lessons == Lessons()
    if text.model is None and as_the_paper and len(train) == 60_000 and {0.8, 0.9} <= set(sparsities):
        print(write_pruning_beside_paper(curves, Path(args.output_dir), args.scope, title))


def prune_language_model(
    args: PruningArguments, text: TextArguments, sparsities: Sequence[float]
) -> list[Degradation]:
    """Measure held-out text; magnitude needs no text, so it is one run."""
    tokenizer = load_tokenizer(text.model)
    model = place(load_causal_lm(text.model))
    blocks = pack(load_texts(text.text, max_documents=text.max_documents), tokenizer, text.block_size)
    texts = load_texts(text.text_test, split="test", max_documents=text.max_test_documents)
    held_out = document_texts(texts, tokenizer=tokenizer)
    runs = [(MAGNITUDE, 0), *((criterion, seed) for criterion in ESTIMATED for seed in args.seeds)]
    scores: dict[str, list[list[float]]] = {}
    with tqdm(total=len(runs) * len(sparsities), desc="pruning", unit="model") as bar:
        for criterion, seed in runs:
            importance = None
            if criterion != MAGNITUDE:
                importance = estimate_importance(
                    model, blocks, criterion, num_examples=text.num_examples, seed=seed, progress=False
                ).importance
            scores.setdefault(criterion, []).append([])
            for sparsity in sparsities:
                pruned = copy.deepcopy(model)
                prune_weights(pruned, sparsity, importance, args.scope)
                result = evaluate_perplexity(
                    pruned, tokenizer, held_out, max_document_tokens=text.max_document_tokens, progress=False
                )
                scores[criterion][-1].append(result.nll)
                bar.update()
    return [Degradation(criterion, sparsities, of_criterion) for criterion, of_criterion in scores.items()]


def prune_perceptrons(
    args: PruningArguments,
    hidden: Sequence[int],
    train: Images,
    test: Images,
    lessons: Lessons,
    sparsities: Sequence[float],
) -> list[Degradation]:
    """Train a stack of networks, and prune each; importance is estimated on the test pictures, as in the paper."""
    device = launched().device
    (task,) = permuted_tasks(train.to(device), test.to(device), 1)
    build = partial(Perceptron, (train.pixels[0].numel(), *hidden, num_classes(train, test)))
    stack = build_stack(build, args.seeds, device)
    ones, synaptic_row = [1.0] * len(stack), Row(Method.SYNAPTIC, Form.PLAIN)
    synaptic = Protection(synaptic_row, ones)
    with tqdm(total=lessons.steps(task), desc="learning", unit="step") as bar:
        learn_in_turn(stack, [task], synaptic, lessons, args.seeds, bar.update)
    curves = []
    for criterion in (MAGNITUDE, "signal", "fisher", "mas", "synaptic"):
        importance = None
        if criterion != MAGNITUDE:
            row = Row(Method(criterion), Form.PLAIN)
            known = synaptic if row == synaptic_row else Protection(row, ones, num_examples=None)
            known.remember(stack, dataclasses.replace(task, train=task.test))
            importance = known.consolidation.importance
        shares = tqdm(sparsities, desc=f"pruning by {criterion}", unit="stack")
        accuracies = [_pruned_accuracy(stack, task, importance, sparsity, args.scope) for sparsity in shares]
        curves.append(Degradation(criterion, sparsities, np.transpose(accuracies).tolist()))
    return curves


def _pruned_accuracy(
    stack: Stack, task: Task, importance: Mapping[str, Tensor] | None, sparsity: float, scope: PruningScope
) -> list[float]:
    pruned = [stack.member(index) for index in range(len(stack))]
    for index, network in enumerate(pruned):
        own = None if importance is None else {name: omega[index] for name, omega in importance.items()}
        prune_weights(network, sparsity, own, scope)
    return measured_accuracy(Stack(pruned), task).tolist()


if __name__ == "__main__":
    main()

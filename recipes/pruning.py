"""Prune a model by several criteria, and measure what it loses.

A language model, by its perplexity on held-out text:

accelerate launch recipes/pruning.py --model gpt2 --text books_train.parquet --text_test books_test.parquet

The fully connected network of Kutalev & Lapina 2021, by its accuracy on the pictures that it learned:

accelerate launch recipes/pruning.py --train mnist_train.npz --test mnist_test.npz

With neither, scikit-learn's digits take the pictures' place.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from ewc_hf import estimate_importance, evaluate_perplexity
from ewc_hf.cli import parse_arguments
from ewc_hf.continual import (
    Form,
    Lessons,
    Perceptron,
    Protection,
    Row,
    Stack,
    digits,
    learn_in_turn,
    measured_accuracy,
    permuted_tasks,
    read_images,
)
from ewc_hf.data import document_texts, load_texts, pack
from ewc_hf.engines import place
from ewc_hf.importance import Method, PruningScope, prune_weights
from ewc_hf.study import Degradation, write_degradation

MAGNITUDE = "magnitude"


@dataclass
class PruningArguments:
    """What is pruned, by which criteria, and what measures it."""

    model: str | None = field(default=None, metadata={"help": "A causal language model: a folder or a Hub id."})
    text: str | None = field(default=None, metadata={"help": "Text like its pretraining text, for the importance."})
    text_test: str | None = field(default=None, metadata={"help": "Held-out text like it."})
    train: str | None = field(default=None, metadata={"help": "Pictures to learn; default scikit-learn's digits."})
    test: str | None = field(default=None, metadata={"help": "Pictures to test on, and to estimate importance on."})
    scope: PruningScope = field(
        default=PruningScope.NETWORK, metadata={"help": "'network' or 'layer': among which weights one chooses."}
    )
    seeds: list[int] = field(
        default_factory=lambda: [0, 1, 2], metadata={"help": "Of the networks, or of the text's sample: a run each."}
    )
    step: float = field(default=0.05, metadata={"help": "From one share of pruned weights to the next."})
    most: float = field(default=1.0, metadata={"help": "The largest share."})
    shown: list[float] = field(default_factory=lambda: [0.5, 0.8, 0.9], metadata={"help": "Shares in the table."})
    num_examples: int = field(default=512, metadata={"help": "Blocks of text that importance is estimated on."})
    block_size: int = field(default=128, metadata={"help": "Tokens a block."})
    max_documents: int = field(default=200, metadata={"help": "Documents that the blocks are sampled from."})
    max_test_documents: int = field(default=40, metadata={"help": "Held-out documents."})
    max_document_tokens: int | None = field(default=None, metadata={"help": "Cut them after so many tokens."})
    output_dir: str = field(default="out/pruning", metadata={"help": "Folder of the report."})


def main() -> None:
    """Prune, measure and write the report."""
    args, lessons = parse_arguments(PruningArguments, Lessons, description=__doc__)
    sparsities = np.arange(0, args.most + args.step / 2, args.step).tolist()
    if args.model is None:
        curves, title, score = list(_of_pictures(args, lessons, sparsities)), "Pruned perceptron", "accuracy"
    else:
        curves, title, score = list(_of_text(args, sparsities)), f"Pruned {Path(args.model).name}", "perplexity"
    print(write_degradation(curves, Path(args.output_dir), title, score, args.shown))


def _of_text(args: PruningArguments, sparsities: list[float]) -> Iterator[Degradation]:
    """Prune a language model; magnitude needs no text, so it is one run."""
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = place(AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32))
    blocks = pack(load_texts(args.text, max_documents=args.max_documents), tokenizer, args.block_size)
    held_out = document_texts(load_texts(args.text_test, split="test", max_documents=args.max_test_documents))
    runs = [(MAGNITUDE, 0), *((method, seed) for method in ("signal", "fisher", "mas") for seed in args.seeds)]
    scores: dict[str, list[list[float]]] = {}
    with tqdm(total=len(runs) * len(sparsities), desc="pruning", unit="model") as bar:
        for criterion, seed in runs:
            importance = None
            if criterion != MAGNITUDE:
                importance = estimate_importance(
                    model, blocks, criterion, num_examples=args.num_examples, seed=seed, progress=False
                ).importance
            scores.setdefault(criterion, []).append([])
            for sparsity in sparsities:
                pruned = copy.deepcopy(model)
                prune_weights(pruned, sparsity, importance, args.scope)
                result = evaluate_perplexity(
                    pruned, tokenizer, held_out, max_document_tokens=args.max_document_tokens, progress=False
                )
                scores[criterion][-1].append(result.perplexity)
                bar.update()
    for criterion, of_criterion in scores.items():
        yield Degradation(criterion, sparsities, of_criterion)


def _of_pictures(args: PruningArguments, lessons: Lessons, sparsities: list[float]) -> Iterator[Degradation]:
    """Train a stack of networks, and prune each; importance is estimated on the test pictures, as in the paper."""
    train, test = (
        digits(split) if source is None else read_images(source, split)
        for source, split in ((args.train, "train"), (args.test, "test"))
    )
    device = PartialState().device
    (task,) = permuted_tasks(train.to(device), test.to(device), 1)
    networks = []
    for seed in args.seeds:
        torch.manual_seed(seed)
        networks.append(Perceptron((train.pixels[0].numel(), 300, 150, int(train.labels.max()) + 1)))
    stack = Stack(networks).to(device)
    synaptic = Protection(Row(Method.SYNAPTIC, Form.PLAIN), [1.0] * len(stack))
    with tqdm(total=lessons.steps(task), desc="learning", unit="step") as bar:
        learn_in_turn(stack, [task], synaptic, lessons, args.seeds, bar.update)
    for criterion in (MAGNITUDE, "signal", "fisher", "mas", "synaptic"):
        importance = None
        if criterion != MAGNITUDE:
            row = Row(Method(criterion), Form.PLAIN)
            known = synaptic if row.method is Method.SYNAPTIC else Protection(row, [1.0] * len(stack))
            known.remember(stack, task.test)
            importance = known.consolidation.importance
        scores = []
        for sparsity in tqdm(sparsities, desc=f"pruning by {criterion}", unit="stack"):
            pruned = [stack.member(index) for index in range(len(stack))]
            for index, network in enumerate(pruned):
                of_one = None if importance is None else {name: omega[index] for name, omega in importance.items()}
                prune_weights(network, sparsity, of_one, args.scope)
            scores.append(measured_accuracy(Stack(pruned), task).tolist())
        yield Degradation(criterion, sparsities, np.transpose(scores).tolist())


if __name__ == "__main__":
    main()

"""Time the estimation of Fisher importance against a plain forward and backward pass and against other libraries.

accelerate launch recipes/benchmarks/importance.py --output_dir out/benchmarks

The libraries are optional: pip install --no-deps opacus backpack-for-pytorch unfoldNd kronfluence einops einconv
opt_einsum. All times are of one batch of a GPT-2 with random weights, after a first one.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peers import PEERS
from side_by_side import extra_peak_bytes, interleaved, machine, random_gpt2, ratio, shown, write_results
from torch import Tensor
from transformers import GPT2LMHeadModel

from ewc_hf.cli import parse_arguments
from ewc_hf.data import Batch, next_tokens
from ewc_hf.engines import trainable_parameters
from ewc_hf.importance import LabelSource, log_likelihood
from ewc_hf.per_example import GradientStatistics, Statistic, add_one_by_one, pieces_of

PLAIN, OURS, LOOP = "plain forward + backward", "ewc_hf", "one example at a time"
OBJECTIVE = log_likelihood(LabelSource.GROUND_TRUTH, seed=0)


@dataclass
class BenchmarkArguments:
    """The model and its batches."""

    n_embd: int = field(default=384, metadata={"help": "Width."})
    n_layer: int = field(default=6, metadata={"help": "Layers."})
    vocab_size: int = field(default=8192, metadata={"help": "Vocabulary."})
    lengths: list[int] = field(default_factory=lambda: [64, 128, 256], metadata={"help": "Tokens an example."})
    batch_size: int = field(default=8, metadata={"help": "Examples a batch."})
    dtype: str = field(default="float32", metadata={"help": "Of the weights: float32 or bfloat16."})
    repeats: int = field(default=9, metadata={"help": "Rounds that are counted."})
    output_dir: str = field(default="out/benchmarks", metadata={"help": "Where importance.json and .md go."})


def main() -> None:
    """Measure and write the table."""
    (args,) = parse_arguments(BenchmarkArguments, description=__doc__)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = random_gpt2(args.n_embd, args.n_layer, args.vocab_size, max(args.lengths)).eval()
    model = model.to(device, getattr(torch, args.dtype))
    batches = {length: _ids(args, length).to(device) for length in args.lengths}

    # 1. Everybody on the same batches, in turn.
    contenders, missing = _contenders(model), []
    for name, prepare in PEERS.items():
        try:
            contenders[name] = prepare(model)
        except ImportError as error:
            missing.append(f"{name} ({error})")
    seconds: dict[int, dict[str, list[float]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the other libraries' own
        for length, ids in batches.items():
            seconds[length] = interleaved({name: partial(run, ids) for name, run in contenders.items()}, args.repeats)

        longest = batches[args.lengths[-1]]
        memory = {name: extra_peak_bytes(partial(run, longest)) for name, run in contenders.items()}
        memory["activations"] = extra_peak_bytes(partial(_without_weight_gradients, model, longest))

    # 2. How exact ours is.
    error = _relative_error(model, batches[args.lengths[0]])

    # 3. The table.
    size = sum(p.numel() * 4 for p in model.parameters())
    largest = max(p.numel() * 4 for p in model.parameters())
    rows = []
    for name in contenders:
        row = {"": name}
        for length in args.lengths:
            row[f"{length} tokens"] = shown(ratio(seconds[length][name], seconds[length][PLAIN]))
        row["peak memory (MiB)"] = f"{memory[name] / 2**20:.0f}"
        rows.append(row)
    notes = (
        f"{machine()['device']}: GPT-2 of width {args.n_embd}, {args.n_layer} layers, vocabulary {args.vocab_size}, "
        f"{args.dtype}, {args.batch_size} examples a batch. Time as a multiple of {PLAIN} in the same round, median "
        f"(min to max) of {args.repeats} rounds. Relative error of ours: {error:.1e}. Peak memory of one batch of "
        f"{args.lengths[-1]} tokens, beyond the weights and our accumulators, which have {size / 2**20:.0f} MiB each; "
        f"of ours, {memory['activations'] / 2**20:.0f} MiB are activations and their gradients, and the largest layer "
        f"has {largest / 2**20:.0f} MiB. kronfluence and backpack cover linear layers only."
        + (f" Not installed: {', '.join(missing)}." if missing else "")
    )
    record = {"arguments": asdict(args), "seconds": seconds, "relative_error": error, "peak_memory_bytes": memory}
    write_results(Path(args.output_dir) / f"importance_{device.type}", "Importance", notes, rows, record)


def _ids(args: BenchmarkArguments, length: int) -> Tensor:
    draws = torch.Generator().manual_seed(length)
    return torch.randint(args.vocab_size, (args.batch_size, length), generator=draws)


def _contenders(model: GPT2LMHeadModel) -> dict[str, Callable[[Tensor], Any]]:
    """Return our two ways and the baseline, as functions of token ids."""
    parameters = trainable_parameters(model)
    ours = GradientStatistics(model, parameters, OBJECTIVE, Statistic.SQUARE)

    def plain(ids: Tensor) -> None:
        model(input_ids=ids, labels=ids).loss.backward()
        model.zero_grad()

    def loop(ids: Tensor) -> None:
        add_one_by_one(ours.accumulators, parameters, model, _batch(ids), OBJECTIVE, Statistic.SQUARE)

    return {PLAIN: plain, OURS: lambda ids: ours.add(_batch(ids)), LOOP: loop}


def _batch(ids: Tensor) -> Batch:
    return Batch({"input_ids": ids}, next_tokens(ids), torch.arange(len(ids), device=ids.device))


def _without_weight_gradients(model: GPT2LMHeadModel, ids: Tensor) -> None:
    """Run what no estimate can do without, on as many examples at a time as ours."""
    for piece in pieces_of(_batch(ids)):
        embeddings = model.transformer.wte(piece.inputs["input_ids"]).detach().requires_grad_()
        values_B = OBJECTIVE(model, Batch({"inputs_embeds": embeddings}, piece.labels, piece.numbers))
        torch.autograd.grad(values_B.sum(), embeddings)


def _relative_error(model: GPT2LMHeadModel, ids: Tensor) -> float:
    """Return the largest error of any parameter, relative to its largest importance by a loop in float64."""
    got = GradientStatistics(model, trainable_parameters(model), OBJECTIVE, Statistic.SQUARE)
    got.add(_batch(ids))
    exact_model = copy.deepcopy(model).double()
    exact = {name: torch.zeros_like(p) for name, p in exact_model.named_parameters()}
    parameters = trainable_parameters(exact_model)
    add_one_by_one(exact, parameters, exact_model, _batch(ids), OBJECTIVE, Statistic.SQUARE)
    errors = [(got.accumulators[name] - total).abs().max() / total.max() for name, total in exact.items()]
    return max(error.item() for error in errors)


if __name__ == "__main__":
    main()

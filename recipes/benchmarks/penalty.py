"""Time the penalty against a training step, against autograd's penalty and against the memory traffic it cannot avoid.

accelerate launch recipes/benchmarks/penalty.py --output_dir out/benchmarks

A training step is forward, backward, clipping and AdamW on 8 sequences of 128 tokens of a GPT-2 with random weights.
The traffic is five passes over tensors of the model's size, four read and one written, at the speed of a plain copy,
which makes two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from side_by_side import extra_peak_bytes, interleaved, machine, random_gpt2, ratio, shown, write_results
from torch import nn
from torch.nn.utils import clip_grad_norm_

from ewc_hf import Consolidation, Coupling
from ewc_hf.cli import parse_arguments
from ewc_hf.engines import LocalParameters
from ewc_hf.penalty import CoupledPenalty, Diagonal

STEP, COPY, AUTOGRAD = "training step", "plain copy", "autograd penalty"
LAMBDA, LEARNING_RATE = 30.0, 5e-4


@dataclass
class BenchmarkArguments:
    """The model and its batch."""

    n_embd: int = field(default=384, metadata={"help": "Width."})
    n_layer: int = field(default=6, metadata={"help": "Layers."})
    vocab_size: int = field(default=8192, metadata={"help": "Vocabulary."})
    length: int = field(default=128, metadata={"help": "Tokens an example."})
    batch_size: int = field(default=8, metadata={"help": "Examples a batch."})
    repeats: int = field(default=15, metadata={"help": "Rounds that are counted."})
    output_dir: str = field(default="out/benchmarks", metadata={"help": "Where penalty.json and .md go."})


def main() -> None:
    """Measure and write the table."""
    (args,) = parse_arguments(BenchmarkArguments, description=__doc__)
    contenders, size = _contenders(args)

    # 1. Everybody in turn; the penalties act on gradients and moments that the step before them left.
    seconds = interleaved(contenders, args.repeats, warmup=2)

    # 2. What each takes beside weights, gradients, optimizer, importance and anchor.
    memory = {name: extra_peak_bytes(run) for name, run in contenders.items() if name not in (STEP, COPY)}

    # 3. The table.
    rows = []
    for name in contenders:
        traffic = ratio(seconds[name], [2.5 * copy for copy in seconds[COPY]])
        median = sorted(seconds[name])[len(seconds[name]) // 2]
        rows.append(
            {
                "": name,
                "ms": f"{1e3 * median:.1f}",
                "% of a step": shown({k: 100 * v for k, v in ratio(seconds[name], seconds[STEP]).items()}),
                "multiple of five passes": "" if name in (STEP, COPY, AUTOGRAD) else shown(traffic),
                "temporary memory (MiB)": f"{memory[name] / 2**20:.1f}" if name in memory else "",
            }
        )
    notes = (
        f"{machine()['device']}: GPT-2 of width {args.n_embd}, {args.n_layer} layers, vocabulary {args.vocab_size}, "
        f"float32 ({size / 2**20:.0f} MiB), {args.batch_size} x {args.length} tokens a step, coefficients computed "
        f"anew each step. Ratios within a round, median (min to max) of {args.repeats} rounds. 'fused' is compiled by "
        "`torch.compile`: what runs on GPUs, and on a CPU with `torch_compile=True`."
    )
    record = {"arguments": asdict(args), "seconds": seconds, "temporary_bytes": memory}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    write_results(Path(args.output_dir) / f"penalty_{device}", "Penalty", notes, rows, record)


def _contenders(args: BenchmarkArguments) -> tuple[dict[str, Callable[[], Any]], int]:
    """Return what is timed, and the bytes of the model."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = random_gpt2(args.n_embd, args.n_layer, args.vocab_size, args.length).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    parameters = dict(model.named_parameters())
    consolidation = Consolidation.create(
        importance={name: torch.rand_like(p) * 1e-3 for name, p in parameters.items()},
        anchor={name: p.detach() + 1e-3 * torch.randn_like(p) for name, p in parameters.items()},
        method="random",
        unit="nats per token",
        num_examples=1,
        num_tokens=1,
    )
    ids = torch.randint(args.vocab_size, (args.batch_size, args.length), device=device)
    source, target = (torch.zeros(sum(p.numel() for p in parameters.values()), device=device) for _ in range(2))
    stepped = LocalParameters(model, optimizer)
    terms = {fused: [Diagonal(consolidation, stepped, fused=fused)] for fused in (False, True)}
    penalties = {
        (coupling, fused): CoupledPenalty(terms[fused], stepped, coupling, LAMBDA, [LEARNING_RATE])
        for fused in (False, True)
        for coupling in Coupling
    }

    def step() -> None:
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    def act(coupling: Coupling, fused: bool) -> None:
        penalty = penalties[coupling, fused]
        penalty.add_gradient() if coupling is Coupling.LOSS else penalty.pull(optimizer, (), {})

    step()
    contenders: dict[str, Callable[[], Any]] = {STEP: step, COPY: lambda: target.copy_(source)}
    for coupling, fused in penalties:
        contenders[f"{coupling.value}{', fused' if fused else ''}"] = partial(act, coupling, fused)
    contenders[AUTOGRAD] = partial(_autograd_penalty, parameters, consolidation)
    return contenders, 4 * source.numel()


def _autograd_penalty(parameters: dict[str, nn.Parameter], consolidation: Consolidation) -> None:
    """The penalty as it is often written: a term of the loss."""
    importance, anchor = consolidation.importance, consolidation.anchor
    penalty = sum((importance[name] * (p - anchor[name]).square()).sum() for name, p in parameters.items())
    (LAMBDA / 2 * penalty).backward()


if __name__ == "__main__":
    main()

"""Where a tuned model's forgetting sits: by kind of layer, and by depth.

For each part of the weights two mixtures of the old and the tuned model are measured: the old one with this part as it
was tuned, and the tuned one with this part put back. The first tells what the part does alone, the second what the
forgetting would be without it. Neither has to sum up to the whole, since parts act on each other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from tqdm.auto import tqdm

from ..consolidation import NATS_PER_TOKEN, StoredConsolidation, depths_of, grouped, kind_of
from ..engines import Rows, require_one_process, row_blocks
from ..evaluation import evaluate_perplexity
from .line import line_tensors
from .line_ends import LineEnds, open_ends


@dataclass(frozen=True)
class DiagnosedPart:
    """What one part of the weights has to do with the forgetting.

    Attributes:
        name: of the part.
        num_weights: how many.
        moved: `||w_tuned - w_base|| / ||w_base||` of them.
        predicted: `1/2 sum Omega (w_tuned - w_base)^2`, nats per token; None without an importance in that unit.
        alone: forgetting of the old model with this part as it was tuned, in nats per token.
        put_back: by how much the tuned model's forgetting falls with this part put back, in nats per token.
    """

    name: str
    num_weights: int
    moved: float
    predicted: float | None
    alone: float
    put_back: float


@dataclass(frozen=True)
class Diagnosis:
    """Where the forgetting of a tuned model sits.

    Attributes:
        base: the old model, as it was named.
        tuned: the tuned model, as it was named.
        forgetting: rise of the NLL on the retention text, nats per token.
        predicted: what the importance predicts of it; None without one.
        kinds: parts by kind of layer.
        depths: parts by depth, the first layers first.
    """

    base: str
    tuned: str
    forgetting: float
    predicted: float | None
    kinds: list[DiagnosedPart]
    depths: list[DiagnosedPart]


def diagnose(
    base: str | os.PathLike[str],
    tuned: str | os.PathLike[str],
    retention_texts: Sequence[str],
    *,
    consolidation: str | os.PathLike[str] | None = None,
    window: int | None = None,
    stride: int | None = None,
    max_document_tokens: int | None = None,
    bos_in_each_window: bool = False,
    batch_size: int = 8,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Diagnosis:
    """Tell where a tuned model's forgetting sits.

    Each part costs two evaluations. In memory is one model, in float32; base and tuned stay on disk.

    Args:
        base: the old model, a folder or Hub id.
        tuned: the tuned model of the same architecture, or an adapter of the old one that PEFT can merge.
        retention_texts: held-out documents like the text that was learned first.
        consolidation: an importance of the old model, in nats per token, for what it predicts; None predicts nothing.
        window: as `evaluate_perplexity`'s, like all up to `batch_size`.
        stride: tokens that the window moves by.
        max_document_tokens: cut documents after so many tokens.
        bos_in_each_window: repeat the beginning-of-text token in each window.
        batch_size: windows a forward pass.
        trust_remote_code: run the code that the models bring along.
        progress: show a progress bar.

    Raises:
        ValueError: more than one process, an importance in another unit or of another model; and as `open_ends` and
            `evaluate_perplexity`.
    """
    require_one_process()
    with TemporaryDirectory() as scratch:
        ends = open_ends(base, tuned, Path(scratch), trust_remote_code)
        model, tokenizer = ends.load()
        mixture = _Mixture(model, ends)
        importance = None if consolidation is None else _importance(consolidation, ends.base)
        measure = partial(
            evaluate_perplexity,
            model,
            tokenizer,
            retention_texts,
            stride,
            window=window,
            max_document_tokens=max_document_tokens,
            bos_in_each_window=bos_in_each_window,
            batch_size=batch_size,
            progress=False,
        )
        kinds, depths = grouped(mixture.names, kind_of), grouped(mixture.names, depths_of(mixture.names))
        total = 2 + 2 * (len(kinds) + len(depths))
        with tqdm(total=total, desc="diagnose", unit="model", disable=not progress) as bar:

            def nll_with(tuned_names: Collection[str]) -> float:
                mixture.tune(tuned_names)
                bar.update()
                return measure().nll

            old, whole = nll_with(()), nll_with(mixture.names)

            def diagnosed(name: str, names: Sequence[str]) -> DiagnosedPart:
                moved, predicted = _moved(ends, names, importance)
                alone = nll_with(names) - old
                put_back = whole - nll_with([other for other in mixture.names if other not in names])
                num_weights = sum(math.prod(ends.tuned[each].shape) for each in names)
                return DiagnosedPart(name, num_weights, moved, predicted, alone, put_back)

            of_kinds, of_depths = ([diagnosed(*part) for part in parts.items()] for parts in (kinds, depths))
    predicted = None if importance is None else sum(part.predicted or 0.0 for part in of_kinds)
    return Diagnosis(str(base), str(tuned), whole - old, predicted, of_kinds, of_depths)


class _Mixture:
    """A model whose tensors are each the old one's or the tuned one's.

    Args:
        model: whole in this process, the tuned one as it was loaded.
        ends: where both are.
    """

    def __init__(self, model: nn.Module, ends: LineEnds) -> None:
        self._tensors, self._ends = line_tensors(model), ends
        self.names = list(self._tensors)
        self._tuned = set(self.names)

    @torch.no_grad()
    def tune(self, names: Collection[str]) -> None:
        """Let these tensors be the tuned model's, and all others the old one's."""
        for name in self._tuned.symmetric_difference(names):
            tensor, source = self._tensors[name], (self._ends.tuned if name in names else self._ends.base)[name]
            tensor.copy_(source[...].reshape(tensor.shape))
        self._tuned = set(names)


def _importance(consolidation: str | os.PathLike[str], weights: Mapping[str, Rows]) -> Mapping[str, Rows]:
    stored = StoredConsolidation.open(consolidation)
    if (unit := stored.metadata["unit"]) != NATS_PER_TOKEN:
        raise ValueError(
            f"expected an importance in '{NATS_PER_TOKEN}', as Fisher's, got one in '{unit}', which predicts no "
            "forgetting; leave it out"
        )
    for name, omega in stored.importance.items():
        if name not in weights or omega.shape != weights[name].shape:
            shape = tuple(weights[name].shape) if name in weights else "none of this name"
            raise ValueError(
                f"expected an importance of this model, got one of '{name}' of shape {tuple(omega.shape)}, not {shape}"
            )
    return stored.importance


def _moved(ends: LineEnds, names: Sequence[str], importance: Mapping[str, Rows] | None) -> tuple[float, float | None]:
    """Return `||w_tuned - w_base|| / ||w_base||`, and what the importance predicts of it."""
    moved = norm = predicted = 0.0
    for name in names:
        known = None if importance is None else importance.get(name)
        tensors = [ends.base[name], ends.tuned[name], *([] if known is None else [known])]
        for old, new, *omega in zip(*map(row_blocks, tensors), strict=True):
            change = (new.double() - old.double()).square()
            moved, norm = moved + change.sum().item(), norm + old.double().square().sum().item()
            predicted += sum((each.double() * change).sum().item() for each in omega) / 2
    relative = math.sqrt(moved / norm) if norm > 0 else math.copysign(math.inf, moved) if moved else 0.0
    return relative, None if importance is None else predicted

"""From examples to batches, as a model takes them, and each process's share of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..engines import device_of
from .labels import IGNORED, next_tokens, predicts_next_token
from .padding import pad_examples
from .sampling import Example

Collator = Callable[[list[Example]], Mapping[str, Any]]


@dataclass(frozen=True)
class Batch:
    """Examples as a model takes them.

    Attributes:
        inputs: the arguments of the model's `forward`, each with one row an example.
        labels: one row an example; each label at the position that predicts it, -100 where none is predicted.
        numbers: each example's number in the sample, [B].
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    numbers: Tensor

    def __len__(self) -> int:
        """Return how many examples there are."""
        return len(self.labels)

    @property
    def num_label_tokens(self) -> int:
        """How many labels count."""
        return int((self.labels != IGNORED).sum())

    def rows(self, rows: Tensor | slice) -> Batch:
        """Return some of the examples, by position or as a slice."""
        inputs = {key: value[rows] for key, value in self.inputs.items()}
        return Batch(inputs, self.labels[rows], self.numbers[rows])

    def split(self, size: int) -> Iterator[Batch]:
        """Yield the examples, `size` at a time."""
        yield from (self.rows(slice(start, start + size)) for start in range(0, len(self), size))

    def share(self, index: int, size: int, even: bool) -> Batch:
        """Return a process's share of the examples.

        Args:
            index: of the process.
            size: number of processes.
            even: whether all shares need to be of one size; what is added has no labels.
        """
        if size == 1:
            return self
        last = len(self) + (-len(self) % size if even else 0)
        positions = torch.arange(last, device=self.labels.device)[index::size]
        share = self.rows(positions % len(self))
        share.labels[positions >= len(self)] = IGNORED
        return share


def batches(
    examples: list[Example],
    batch_size: int,
    collator: Collator | None,
    model: nn.Module,
    seed: int = 0,
) -> Iterator[Batch]:
    """Yield batches on the model's device, whose labels are each at the position that predicts it.

    Args:
        examples: what `sample_examples` returned.
        batch_size: examples a batch.
        collator: makes a batch with `labels` of a list of examples; None is `pad_examples`.
        model: what the batches are for. An encoder-decoder gets its `decoder_input_ids`.
        seed: of torch's random numbers while the collator works, so that every process gets the same batch.

    Raises:
        ValueError: `batch_size` is not positive, or a batch has no `labels` or not one row an example.
    """
    if batch_size < 1:
        raise ValueError(f"expected batch_size >= 1, got {batch_size}")
    device = device_of(next(model.parameters()))
    shifts = predicts_next_token(model)
    for start in range(0, len(examples), batch_size):
        chosen = examples[start : start + batch_size]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed + start)
            inputs = dict(pad_examples(chosen, model) if collator is None else collator(chosen))
        if "labels" not in inputs:
            raise ValueError(
                f"expected batches with the key 'labels', got the keys {sorted(inputs)}; use a collator that adds "
                "labels, for instance `DataCollatorForLanguageModeling(tokenizer, mlm=False)`"
            )
        inputs = {key: value.to(device) for key, value in inputs.items()}
        if rows := {key: tuple(value.shape) for key, value in inputs.items() if value.shape[:1] != (len(chosen),)}:
            raise ValueError(
                f"expected batches of one row for each of {len(chosen)} examples, got {rows}; use a collator that "
                "neither packs examples into one row nor adds tensors that they share"
            )
        labels = inputs.pop("labels")
        if isinstance(model, PreTrainedModel) and model.config.is_encoder_decoder:
            inputs.setdefault("decoder_input_ids", model.prepare_decoder_input_ids_from_labels(labels=labels))
        if shifts and labels.dim() > 1:
            labels = next_tokens(labels)
        yield Batch(inputs, labels, torch.arange(start, start + len(chosen), device=device))

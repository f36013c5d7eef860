"""From examples to batches, as a model takes them, and each process's share of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..engines import device_of
from .context import require_within_context, sequence_length
from .labels import IGNORED, is_encoder_decoder, next_tokens, predicts_next_token
from .own_loss import between_real_tokens, own_loss_shifts
from .padding import pad_with_lengths
from .sampling import Example
from .vocabulary import require_known_tokens

Collator = Callable[[list[Example]], Mapping[str, Any]]


@dataclass(frozen=True)
class Batch:
    """Examples as a model takes them.

    Attributes:
        inputs: the arguments of the model's `forward`, each with one row an example.
        labels: one row an example; each label at the position that predicts it, -100 where none is predicted.
        numbers: each example's number in the sample, [B].
        lengths: of inputs, and of "labels", that are padded on the right: each row's length without padding, [B].
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    numbers: Tensor
    lengths: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return how many examples there are."""
        return len(self.labels)

    @property
    def num_label_tokens(self) -> int:
        """How many labels count."""
        return int((self.labels != IGNORED).sum())

    def rows(self, rows: Tensor | slice) -> Batch:
        """Return some of the examples, by position or as a slice."""
        inputs, lengths = ({key: value[rows] for key, value in of.items()} for of in (self.inputs, self.lengths))
        return Batch(inputs, self.labels[rows], self.numbers[rows], lengths)

    def split(self, size: int) -> Iterator[Batch]:
        """Yield the examples, `size` at a time."""
        yield from (self.rows(slice(start, start + size)) for start in range(0, len(self), size))

    def alone(self) -> Iterator[Batch]:
        """Yield each example as a batch of its own, without the padding."""
        for row in self.split(1):
            lengths = {key: int(length) for key, length in row.lengths.items()}
            inputs = {key: value[:, : lengths[key]] if key in lengths else value for key, value in row.inputs.items()}
            labels = row.labels[:, : lengths["labels"]] if "labels" in lengths else row.labels
            yield Batch(inputs, labels, row.numbers)

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

    Which position that is, the model's own loss tells (`own_loss_shifts`). Padding is no label and predicts none.

    Args:
        examples: what `sample_examples` returned.
        batch_size: examples a batch.
        collator: makes a batch with `labels` of a list of examples; None pads as `pad_examples` does.
        model: what the batches are for.
        seed: of torch's random numbers while the collator works, so that every process gets the same batch.

    Raises:
        ValueError: `batch_size` is not positive, a batch has no `labels` or not one row an example, a sequence is
            longer than the model's context, a token is not in its vocabulary, or its own loss is another one.
    """
    if batch_size < 1:
        raise ValueError(f"expected batch_size >= 1, got {batch_size}")
    if collator is None:
        require_within_context(model, max(map(sequence_length, examples)))
    device = device_of(next(model.parameters()))
    mask_of_labels = "decoder_attention_mask" if is_encoder_decoder(model) else "attention_mask"
    shifts: bool | None = None
    for start in range(0, len(examples), batch_size):
        chosen = examples[start : start + batch_size]
        if collator is None:
            inputs, lengths = pad_with_lengths(chosen, model)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed + start)
                inputs, lengths = dict(collator(chosen)), {}
            require_within_context(model, sequence_length(inputs))
        if "labels" not in inputs:
            raise ValueError(
                f"expected batches with the key 'labels', got the keys {sorted(inputs)}; use a collator that adds "
                "labels, for instance `DataCollatorForLanguageModeling(tokenizer, mlm=False)`"
            )
        inputs, lengths = ({key: value.to(device) for key, value in of.items()} for of in (inputs, lengths))
        if rows := {key: tuple(value.shape) for key, value in inputs.items() if value.shape[:1] != (len(chosen),)}:
            raise ValueError(
                f"expected batches of one row for each of {len(chosen)} examples, got {rows}; use a collator that "
                "neither packs examples into one row nor adds tensors that they share"
            )
        require_known_tokens(model, inputs)
        labels, mask = inputs.pop("labels"), inputs.get(mask_of_labels)
        if shifts is None:
            given = collator is not None or not chosen[0].keys().isdisjoint({"label", "labels"})
            shifts = own_loss_shifts(model, inputs, labels, mask, given)
        next_token = (predicts_next_token(model) if shifts is None else shifts) and labels.dim() > 1
        labels = between_real_tokens(labels, mask, next_token)
        numbers = torch.arange(start, start + len(chosen), device=device)
        yield Batch(inputs, next_tokens(labels) if next_token else labels, numbers, lengths)

"""From a dataset to batches: a reproducible sample of examples, padded and labelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .labels import IGNORED

Example = Mapping[str, Any]
Batch = dict[str, Tensor]
Collator = Callable[[list[Example]], Mapping[str, Any]]
_MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "labels")


def sample_examples(dataset: Dataset | Iterable[Example], num_examples: int, seed: int) -> list[Example]:
    """Return `num_examples` examples (all of them, where there are fewer), the same for the same seed.

    A dataset with a length is sampled without replacement, in random order. Of a stream, which has none, the first
    `num_examples` are taken.

    Raises:
        ValueError: `num_examples` is not positive, or the dataset is empty or a mapping of several.
    """
    if num_examples < 1:
        raise ValueError(f"expected num_examples >= 1, got {num_examples}")
    if isinstance(dataset, Mapping):
        raise ValueError(f"expected one dataset, got a mapping of {sorted(dataset)}; choose one of these splits")
    if isinstance(dataset, Sized):
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(dataset), generator=generator)[:num_examples].tolist()
        examples = [dataset[index] for index in chosen]  # type: ignore[index]
    else:
        examples = list(islice(dataset, num_examples))
    if not examples:
        raise ValueError("expected a dataset with at least one example, got an empty one; check the split and filters")
    return examples


def pad_examples(examples: Sequence[Example]) -> Batch:
    """Stack examples, padded on the right; columns that no language model takes, such as the text, are left out.

    `attention_mask` defaults to ones, `labels` to `input_ids`. Padding is 0 for every key but the labels, whose
    padding is -100; so are the labels where the attention mask is 0.

    Raises:
        ValueError: an example has no `input_ids`, has `position_ids`, or another column is not as long.
    """
    filled = []
    for example in examples:
        if "input_ids" not in example:
            raise ValueError(
                f"expected examples with the key 'input_ids', got the keys {sorted(example)}; "
                "tokenize the dataset first, or pass a `data_collator`"
            )
        if "position_ids" in example:
            raise ValueError(
                "expected examples of one sequence each, got 'position_ids', which several packed ones need; leave "
                "the column out and let a block be one sequence, or pass a `data_collator`"
            )
        tensors = {key: torch.as_tensor(example[key]) for key in _MODEL_INPUTS if key in example}
        tensors.setdefault("attention_mask", torch.ones_like(tensors["input_ids"]))
        labels = tensors.get("labels", tensors["input_ids"])
        lengths = {key: len(value) for key, value in tensors.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"expected columns as long as 'input_ids', got the lengths {lengths}; tokenize again")
        tensors["labels"] = labels.masked_fill(tensors["attention_mask"] == 0, IGNORED)
        filled.append(tensors)
    return {
        key: pad_sequence([e[key] for e in filled], batch_first=True, padding_value=IGNORED if key == "labels" else 0)
        for key in filled[0]
    }


def batches(
    examples: list[Example], batch_size: int, collator: Collator | None, device: torch.device
) -> Iterator[Batch]:
    """Yield batches of tensors on `device`.

    Args:
        examples: what `sample_examples` returned.
        batch_size: examples a batch.
        collator: makes a batch with `labels` of a list of examples; None is `pad_examples`.
        device: where the model is.

    Raises:
        ValueError: `batch_size` is not positive, or a batch has no `labels`.
    """
    if batch_size < 1:
        raise ValueError(f"expected batch_size >= 1, got {batch_size}")
    collate = pad_examples if collator is None else collator
    for start in range(0, len(examples), batch_size):
        batch = dict(collate(examples[start : start + batch_size]))
        if "labels" not in batch:
            raise ValueError(
                f"expected batches with the key 'labels', got the keys {sorted(batch)}; use a collator that adds "
                "labels, for instance `DataCollatorForLanguageModeling(tokenizer, mlm=False)`"
            )
        yield {key: value.to(device) for key, value in batch.items()}

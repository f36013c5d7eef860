"""A reproducible sample of a dataset's examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from itertools import islice
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers.utils import logging

logger = logging.get_logger(__name__)

Example = Mapping[str, Any]
"""One row of a dataset: the inputs of a model's `forward`, and `labels`."""


def sample_examples(dataset: Dataset | Iterable[Example], num_examples: int, seed: int) -> list[Example]:
    """Return `num_examples` examples (all of them, where there are fewer), the same for the same seed.

    A dataset with a length is sampled without replacement, in random order. Of a stream, which has none, the first
    `num_examples` are taken. Examples without a token, such as empty lines, are left out, with a warning.

    Raises:
        ValueError: `num_examples` is not positive, or the dataset is empty, a mapping of several or a DataLoader, or
            its examples are not mappings.
    """
    if num_examples < 1:
        raise ValueError(f"expected num_examples >= 1, got {num_examples}")
    if isinstance(dataset, Mapping):
        raise ValueError(f"expected one dataset, got a mapping of {sorted(dataset)}; choose one of these splits")
    if isinstance(dataset, DataLoader):
        raise ValueError(
            "expected a dataset of single examples, got a DataLoader, which yields batches; pass its `dataset`, with "
            "`batch_size` and `data_collator`"
        )
    if isinstance(dataset, Sized):
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(dataset), generator=generator)[:num_examples].tolist()
        examples = [dataset[index] for index in chosen]  # type: ignore[index]
    else:
        examples = list(islice(dataset, num_examples))
    if not examples:
        raise ValueError("expected a dataset with at least one example, got an empty one; check the split and filters")
    for example in examples:
        if not isinstance(example, Mapping):
            raise ValueError(
                "expected examples that are mappings from the names of a model's inputs to their values, got "
                f"{type(example).__name__} {str(example)[:40]!r}; give rows such as {{'input_ids': [...]}}"
            )
    if len(examples) < num_examples:
        logger.warning(f"{num_examples} examples were asked for, and there are {len(examples)}: all of them are read")
    with_tokens = [example for example in examples if not _is_empty(example)]
    if len(with_tokens) < len(examples):
        logger.warning(f"{len(examples) - len(with_tokens)} of {len(examples)} examples have no token: left out")
    if not with_tokens:
        raise ValueError(f"expected examples with tokens, got {len(examples)} empty ones; check the tokenized column")
    return with_tokens


def _is_empty(example: Example) -> bool:
    tokens = example.get("input_ids")
    return isinstance(tokens, Sized) and len(tokens) == 0

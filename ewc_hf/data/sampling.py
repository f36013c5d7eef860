"""A reproducible sample of a dataset's examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from itertools import islice
from typing import Any

import torch
from datasets import Dataset

Example = Mapping[str, Any]
"""One row of a dataset: the inputs of a model's `forward`, and `labels`."""


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

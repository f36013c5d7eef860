"""From a dataset to batches: a reproducible sample of examples, padded and labelled, as a model takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from .labels import IGNORED, next_tokens, predicts_next_token
from .sharding import device_of

Example = Mapping[str, Any]
Batch = dict[str, Tensor]
Collator = Callable[[list[Example]], Mapping[str, Any]]


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


def pad_examples(examples: Sequence[Example], model: nn.Module) -> Batch:
    """Stack examples, sequences padded on the right; columns that the model does not take are left out.

    For `input_ids`, an `attention_mask` defaults to ones, and `labels` to the `input_ids` of a model that predicts the
    next token. Padding is 0 for every key but the labels, whose padding is -100; so are the labels where
    the attention mask is 0.

    Raises:
        ValueError: an example has none of the model's inputs, no labels, or `position_ids`, or its columns or those
            of two examples do not go together.
    """
    parameters = inspect.signature(model.forward).parameters
    accepted = {*parameters, "labels"}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        accepted |= {"input_ids", "attention_mask"}
    filled = [_tensors(example, accepted, predicts_next_token(model)) for example in examples]
    keys = filled[0].keys()
    if any(tensors.keys() != keys for tensors in filled):
        raise ValueError(f"expected examples with the keys {sorted(keys)} each, got others; use one set of columns")
    return {key: _stack(key, [tensors[key] for tensors in filled]) for key in keys}


def _tensors(example: Example, accepted: set[str], predicts_next: bool) -> Batch:
    """Return the columns of one example that the model takes, with mask and labels."""
    if "position_ids" in example:
        raise ValueError(
            "expected examples of one sequence each, got 'position_ids', which several packed ones need; leave "
            "the column out and let a block be one sequence, or pass a `data_collator`"
        )
    example = {"labels" if key == "label" else key: value for key, value in example.items()}
    tensors = {key: torch.as_tensor(value) for key, value in example.items() if key in accepted}
    if tensors.keys() <= {"labels"}:
        expected = "'input_ids'" if "input_ids" in accepted else f"one of {sorted(accepted - {'labels'})}"
        raise ValueError(
            f"expected examples with the key {expected}, got the keys {sorted(example)}; "
            "tokenize the dataset first, or pass a `data_collator`"
        )
    if "input_ids" in tensors:
        if "attention_mask" in accepted:
            tensors.setdefault("attention_mask", torch.ones_like(tensors["input_ids"]))
        if predicts_next:
            tensors.setdefault("labels", tensors["input_ids"])
        parallel = ["input_ids", "attention_mask", "token_type_ids", *(["labels"] if predicts_next else [])]
        lengths = {key: tensors[key].numel() for key in parallel if key in tensors}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"expected columns as long as 'input_ids', got the lengths {lengths}; tokenize again")
    if "labels" not in tensors:
        raise ValueError(f"expected examples with the key 'labels', got the keys {sorted(example)}; add the column")
    if "attention_mask" in tensors and tensors["attention_mask"].shape == tensors["labels"].shape:
        tensors["labels"] = tensors["labels"].masked_fill(tensors["attention_mask"] == 0, IGNORED)
    return tensors


def _stack(key: str, values: list[Tensor]) -> Tensor:
    if all(value.dim() == 1 and not value.is_floating_point() for value in values):
        return pad_sequence(values, batch_first=True, padding_value=IGNORED if key == "labels" else 0)
    if len({value.shape for value in values}) > 1:
        raise ValueError(
            f"expected '{key}' of one shape, got {sorted({tuple(value.shape) for value in values})}; "
            "bring them to one shape, or pass a `data_collator`"
        )
    return torch.stack(values)


def batches(
    examples: list[Example],
    batch_size: int,
    collator: Collator | None,
    model: nn.Module,
    seed: int = 0,
    first: int = 0,
) -> Iterator[Batch]:
    """Yield batches on the model's device, whose labels are each at the position that predicts it.

    Args:
        examples: what `sample_examples` returned.
        batch_size: examples a batch.
        collator: makes a batch with `labels` of a list of examples; None is `pad_examples`.
        model: what the batches are for. An encoder-decoder gets its `decoder_input_ids`.
        seed: of torch's random numbers while the collator works, so that every process gets the same batch.
        first: the example to begin with.

    Raises:
        ValueError: `batch_size` is not positive, or a batch has no `labels` or not one row an example.
    """
    if batch_size < 1:
        raise ValueError(f"expected batch_size >= 1, got {batch_size}")
    device = device_of(next(model.parameters()))
    shifts = predicts_next_token(model)
    for start in range(first, len(examples), batch_size):
        chosen = examples[start : start + batch_size]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed + start)
            batch = dict(pad_examples(chosen, model) if collator is None else collator(chosen))
        if "labels" not in batch:
            raise ValueError(
                f"expected batches with the key 'labels', got the keys {sorted(batch)}; use a collator that adds "
                "labels, for instance `DataCollatorForLanguageModeling(tokenizer, mlm=False)`"
            )
        batch = {key: value.to(device) for key, value in batch.items()}
        if rows := {key: tuple(value.shape) for key, value in batch.items() if value.shape[:1] != (len(chosen),)}:
            raise ValueError(
                f"expected batches of one row for each of {len(chosen)} examples, got {rows}; use a collator that "
                "neither packs examples into one row nor adds tensors that they share"
            )
        if isinstance(model, PreTrainedModel) and model.config.is_encoder_decoder:
            batch.setdefault("decoder_input_ids", model.prepare_decoder_input_ids_from_labels(labels=batch["labels"]))
        if shifts and batch["labels"].dim() > 1:
            batch["labels"] = next_tokens(batch["labels"])
        yield batch


def share_of(batch: Batch, index: int, size: int, even: bool) -> Batch:
    """Return a process's share of a batch's examples.

    Args:
        batch: the same in every process.
        index: of this process.
        size: number of processes.
        even: whether all shares need to be of one size; what is added has no labels.
    """
    if size == 1:
        return batch
    labels = batch["labels"]
    rows = torch.arange(index, len(labels) + (-len(labels) % size if even else 0), size, device=labels.device)
    share = {key: value[rows % len(labels)] for key, value in batch.items()}
    share["labels"][rows >= len(labels)] = IGNORED
    return share


def logits_of(model: nn.Module, batch: Batch) -> Tensor:
    """Run a model on a batch; its labels are left out, so that it computes no loss of its own.

    Raises:
        ValueError: the logits do not have one row a label.
    """
    output = model(**{key: value for key, value in batch.items() if key not in ("labels", "uniforms")})
    logits = output if isinstance(output, Tensor) else output.logits
    if logits.shape[:-1] != batch["labels"].shape:
        raise ValueError(
            f"expected logits with one row for each of {tuple(batch['labels'].shape)} labels, got logits of shape "
            f"{tuple(logits.shape)}; give each predicted position or example one integer label"
        )
    return logits

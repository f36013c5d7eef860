"""Examples of several lengths in one batch."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .labels import IGNORED, predicts_next_token
from .sampling import Example


def pad_examples(examples: Sequence[Example], model: nn.Module) -> dict[str, Tensor]:
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


def _tensors(example: Example, accepted: set[str], predicts_next: bool) -> dict[str, Tensor]:
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

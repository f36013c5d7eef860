"""Examples of several lengths in one batch."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .labels import IGNORED, predicts_next_token, transformers_model
from .sampling import Example


def pad_examples(examples: Sequence[Example], model: nn.Module) -> dict[str, Tensor]:
    """Stack examples, sequences padded on the right; columns that the model does not take are left out.

    For `input_ids`, an `attention_mask` defaults to ones, and `labels` to the `input_ids` of a model that predicts the
    next token. Token ids are padded with the model's `pad_token_id` (0 where it has none), labels with -100, all else
    with 0.

    Raises:
        ValueError: an example has none of the model's inputs, no labels, or `position_ids`, or its columns or those
            of two examples do not go together, or the model answers questions by two positions.
    """
    return pad_with_lengths(examples, model)[0]


def pad_with_lengths(examples: Sequence[Example], model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what `pad_examples` does, and of each column that was padded the length of each row, [B]."""
    accepted = _accepted_by(model)
    if "start_positions" in accepted and "labels" not in accepted:
        raise ValueError(
            f"expected a model with logits and labels, got {type(model).__name__}, whose answers are two positions; "
            "pass a module that returns the logits of one of them"
        )
    rows = [_tensors(example, accepted | {"labels"}, predicts_next_token(model)) for example in examples]
    keys = rows[0].keys()
    if any(row.keys() != keys for row in rows):
        raise ValueError(f"expected examples with the keys {sorted(keys)} each, got others; use one set of columns")
    token = _padding_token(model)
    padding = {"labels": IGNORED, "input_ids": token, "decoder_input_ids": token}
    stacked = {key: _stack(key, [row[key] for row in rows], padding.get(key, 0)) for key in keys}
    lengths = {key: torch.tensor([row[key].shape[0] for row in rows]) for key in keys if rows[0][key].dim() == 1}
    return stacked, {key: of_rows for key, of_rows in lengths.items() if of_rows.min() < of_rows.max()}


def _accepted_by(model: nn.Module) -> set[str]:
    """Return the names of the inputs of a model's `forward`, or of the model that it hands them on to."""
    parameters = inspect.signature(model.forward).parameters
    accepted = {name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
    if len(accepted) == len(parameters):
        return accepted
    inner = transformers_model(model)
    handed_on = {"input_ids", "attention_mask"} if inner is None else {*inspect.signature(inner.forward).parameters}
    return accepted | handed_on


def _padding_token(model: nn.Module) -> int:
    """Return the token that the model knows as padding, for models that look for it; 0 where there is none."""
    known = transformers_model(model)
    token = None if known is None else getattr(known.config.get_text_config(), "pad_token_id", None)
    return token if isinstance(token, int) and token >= 0 else 0


def _tensors(example: Example, accepted: set[str], predicts_next: bool) -> dict[str, Tensor]:
    """Return the columns of one example that the model takes, with mask and labels."""
    if "position_ids" in example:
        raise ValueError(
            "expected examples of one sequence each, got 'position_ids', which several packed ones need; leave "
            "the column out and let a block be one sequence, or pass a `data_collator`"
        )
    if "attention_mask" not in accepted and not torch.as_tensor(example.get("attention_mask", 1)).all():
        raise ValueError(
            "expected examples without padding for a model that takes no attention mask, got some that it leaves out; "
            "give each example its own tokens only: shorter ones are padded here, or go alone where that matters"
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
        parallel = ["input_ids", "attention_mask", "token_type_ids"]
        if predicts_next and tensors["labels"].dim():
            parallel.append("labels")
        lengths = {key: tensors[key].numel() for key in parallel if key in tensors}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"expected columns as long as 'input_ids', got the lengths {lengths}; tokenize again")
    if "labels" not in tensors:
        raise ValueError(f"expected examples with the key 'labels', got the keys {sorted(example)}; add the column")
    return tensors


def _stack(key: str, values: list[Tensor], padding: int) -> Tensor:
    if all(value.dim() == 1 and not value.is_floating_point() for value in values):
        return pad_sequence(values, batch_first=True, padding_value=padding)
    if len({value.shape for value in values}) > 1:
        raise ValueError(
            f"expected '{key}' of one shape, got {sorted({tuple(value.shape) for value in values})}; "
            "bring them to one shape, or pass a `data_collator`"
        )
    return torch.stack(values)

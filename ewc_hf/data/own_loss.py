"""Which position predicts a label, as the model's own loss has it.

Shapes: B examples, T positions. Labels of whole examples are [B].
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..engines import evaluating
from .labels import IGNORED, is_encoder_decoder, next_tokens, predicts_next_token, transformers_model
from .logits import token_nll


def between_real_tokens(labels: Tensor, attention_mask: Tensor | None, shifts: bool) -> Tensor:
    """Leave out the labels of padding, and those that padding would predict.

    Args:
        labels: each at its own token, [B, T] or [B].
        attention_mask: 0 where a token is padding, [B, T]; one of another shape is of other tokens.
        shifts: whether each position predicts the next token.
    """
    if attention_mask is None or attention_mask.shape != labels.shape:
        return labels
    padding = attention_mask == 0
    labels = labels.masked_fill(padding, IGNORED)
    if shifts:
        labels[:, 1:].masked_fill_(padding[:, :-1], IGNORED)
    return labels


def own_loss_shifts(
    model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor, attention_mask: Tensor | None, given: bool
) -> bool | None:
    """Tell whether the model's own loss has each position predict the label of the next one.

    The loss that the model returns for the example with the most labels is compared with the mean of `token_nll` over
    its own logits, the labels at the next position and at the same one. Where both agree, what the class says of
    itself counts (`predicts_next_token`), and where the model returns no loss.

    Args:
        model: unwrapped.
        inputs: of its `forward`, without labels.
        labels: each at its own token, [B, T] or [B].
        attention_mask: of the labels' tokens.
        given: whether the data has the labels; else they are its `input_ids`.

    Returns:
        None where no example tells.

    Raises:
        ValueError: the model's loss is another one, or has the label at the same position and none are given.
    """
    declared = labels.dim() > 1 and predicts_next_token(model)
    if labels.is_floating_point() or not _computes_loss(model):
        return declared
    rows = (labels != IGNORED).view(len(labels), -1).sum(1).argmax(0, keepdim=True)
    mask = None if attention_mask is None else attention_mask[rows]
    labels = between_real_tokens(labels[rows], mask, shifts=True)
    row = {key: value[rows] for key, value in inputs.items()}
    with evaluating(model), torch.no_grad(), _problem_type_kept(model):
        if not is_encoder_decoder(model) and not _are_classes(labels, getattr(model(**row), "logits", None)):
            return declared  # the loss would fail; what needs classes says which label is none
        output = model(**row, labels=labels)
    loss, logits = getattr(output, "loss", None), getattr(output, "logits", None)
    if loss is None or logits is None or logits.shape[:-1] != labels.shape:
        return declared
    means = {}
    for shifts in (declared, not declared) if labels.dim() > 1 else (declared,):
        predicted = next_tokens(labels) if shifts else labels
        if count := int((predicted != IGNORED).sum()):
            means[shifts] = float(token_nll(logits, predicted).sum()) / count
    if not means or not loss.isfinite():
        return None
    tolerance = max(torch.finfo(dtype).eps for dtype in (logits.dtype, torch.float32)) ** 0.5
    agreeing = [shifts for shifts, mean in means.items() if abs(mean - float(loss)) <= tolerance * (1 + abs(mean))]
    if not agreeing:
        raise ValueError(
            f"expected a model whose own loss is the mean negative log-likelihood of its labels, got the loss "
            f"{float(loss):.6g} from {type(model).__name__}, where that is {means[declared]:.6g}; switch off what its "
            "configuration adds (such as `output_router_logits`), or pass a module that returns logits alone"
        )
    if declared not in agreeing and not given:
        raise ValueError(
            f"expected examples with the key 'labels' for {type(model).__name__}, whose loss has each label at the "
            "position that predicts it, got none; add the column, each token's label being the token after it"
        )
    return agreeing[0]


def _are_classes(labels: Tensor, logits: Tensor | None) -> bool:
    counted = labels[labels != IGNORED]
    if logits is None or logits.shape[:-1] != labels.shape or logits.shape[-1] < 2:
        return False
    return not counted.numel() or bool(0 <= counted.min() <= counted.max() < logits.shape[-1])


def _computes_loss(model: nn.Module) -> bool:
    """Tell whether a model, or the one that it wraps, takes labels."""
    known = transformers_model(model)
    return any("labels" in inspect.signature(m.forward).parameters for m in (model, known) if m is not None)


@contextmanager
def _problem_type_kept(model: nn.Module) -> Iterator[None]:
    """Undo what the loss of a classifier writes into its configuration."""
    known = transformers_model(model)
    before = None if known is None else known.config.problem_type
    try:
        yield
    finally:
        if known is not None:
            known.config.problem_type = before

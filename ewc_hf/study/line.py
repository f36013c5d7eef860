"""The straight line between old and tuned weights: a model that is moved along it in place.

Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT, arXiv 2109.01903).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ..engines import Rows, named_parameters, row_blocks, unwrap


class WeightLine:
    """Moves a model's weights in place to a point between two ends.

    `w(t) = w_base + t * (w_tuned - w_base)`

    At `t = 0` the weights are the base's bits, at `t = 1` the tuned ones', cast to the model's dtype. Between them the
    point is computed in float32, or in float64 where an end has that, and rounded once. What is not on the line stays
    as the model has it: whole numbers, and buffers that no checkpoint keeps.

    Rows of a bounded size are read one after another, so that ends that lie on disk are never in memory.

    Args:
        model: whole in this process; it stays where it is.
        base: the old weights by name, in memory or on disk: what `line_tensors` names.
        tuned: the tuned weights by the same names.

    Raises:
        ValueError: an end lacks a name or has another, or a shape differs; the first one is named.
    """

    def __init__(self, model: nn.Module, base: Mapping[str, Rows], tuned: Mapping[str, Rows]) -> None:
        self._weights = line_tensors(model)
        self._base, self._tuned = base, tuned
        for end, tensors in (("base", base), ("tuned", tuned)):
            require_same_tensors(self._weights, tensors, "the model", end)

    @torch.no_grad()
    def move_to(self, t: float) -> None:
        """Set the model's weights to `w(t)`.

        Args:
            t: 0 is base, 1 is tuned.

        Raises:
            ValueError: t is not between 0 and 1.
        """
        if not 0 <= t <= 1:
            raise ValueError(f"expected 0 <= t <= 1, from the base model to the tuned one, got {t}")
        for name, weight in self._weights.items():
            first = 0
            for block in _between(self._base[name], self._tuned[name], t):
                rows = weight[first : first + len(block)] if weight.dim() else weight
                rows.copy_(block)
                first += block.shape[0] if weight.dim() else 0


def line_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return what lies on a line by name: floating-point parameters, tied ones once, and buffers that are saved."""
    inner = unwrap(model)
    saved = inner.state_dict(keep_vars=True).keys()
    buffers = {name: buffer for name, buffer in inner.named_buffers() if name in saved}
    tensors: dict[str, Tensor] = {**named_parameters(model), **buffers}
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def require_same_tensors(one: Mapping[str, Rows], other: Mapping[str, Rows], name: str, other_name: str) -> None:
    """Check that two models have the same tensors.

    Args:
        one: tensors by name.
        other: tensors by name.
        name: what the message calls the first.
        other_name: what it calls the second.

    Raises:
        ValueError: a name is in one of them only, or a shape differs.
    """
    for tensor in (*one, *other):
        if tensor not in one or tensor not in other:
            lone, lacking = (name, other_name) if tensor in one else (other_name, name)
            raise ValueError(
                f"expected the same parameters in {name} and {other_name}, got '{tensor}' in {lone} and not in "
                f"{lacking}; a line joins two checkpoints of one architecture"
            )
        if one[tensor].shape != other[tensor].shape:
            raise ValueError(
                f"expected the same shape of '{tensor}' in {name} and {other_name}, got {tuple(one[tensor].shape)} "
                f"and {tuple(other[tensor].shape)}; a line joins two checkpoints of one architecture"
            )


def _between(base: Rows, tuned: Rows, t: float) -> Iterator[Tensor]:
    """Yield the rows of `w(t)` in order; at an end the other one is not read."""
    if t in (0, 1):
        yield from row_blocks(tuned if t else base)
        return
    dtype = torch.promote_types(torch.promote_types(base.dtype, tuned.dtype), torch.float32)
    for old, new in zip(row_blocks(base), row_blocks(tuned), strict=True):
        yield torch.lerp(old.to(dtype), new.to(dtype), t)

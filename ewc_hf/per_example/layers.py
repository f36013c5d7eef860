"""From one call of a module to what it contributes to its parameters' gradients, example by example.

Shapes: B examples, T positions of an example (all dimensions between the first and the last), I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.functional import layer_norm, rms_norm
from transformers.pytorch_utils import Conv1D

from .contributions import Contribution, OuterProducts, Rows, Whole

_VMAP_ELEMENTS = 1 << 22
"""Elements of per-example gradients that `torch.func` holds at a time."""


class GradientPath(StrEnum):
    """How a parameter's statistic is computed."""

    CLOSED_FORM = "closed form"
    """From the module's inputs and output gradients, in the batched backward pass."""

    MODULE = "module"
    """By `torch.func.vmap` over the module alone, in the batched backward pass."""

    EXAMPLE = "example"
    """By a backward pass of the whole model an example."""


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module that owns trainable parameters.

    Attributes:
        module: the module.
        names: the names of its trainable parameters in the model by their names in the module.
        input: the one tensor among its arguments, [B, ...].
        args: its positional arguments.
        kwargs: its keyword arguments.
    """

    module: nn.Module
    names: Mapping[str, str]
    input: Tensor
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def contributions(self, output_gradient: Tensor) -> dict[str, Contribution]:
        """Return what this call contributes to each trainable parameter, by the parameter's name in the model."""
        closed_form = _CLOSED_FORMS.get(type(self.module))
        found = (
            closed_form(self.module, self.input, output_gradient) if closed_form else _by_vmap(self, output_gradient)
        )
        return {self.names[own]: contribution for own, contribution in found.items() if own in self.names}


def path_of(module: nn.Module) -> GradientPath:
    """Return which path the module's own parameters take, if its calls have B examples."""
    return GradientPath.CLOSED_FORM if type(module) in _CLOSED_FORMS else GradientPath.MODULE


def _linear(module: nn.Linear, x: Tensor, g: Tensor) -> dict[str, Contribution]:
    x_BTI, g_BTO = _positions(x), _positions(g)
    return {"weight": OuterProducts(g_BTO, x_BTI), "bias": Whole(_sum_positions(g, 1))}


def _conv1d(module: Conv1D, x: Tensor, g: Tensor) -> dict[str, Contribution]:
    x_BTI, g_BTO = _positions(x), _positions(g)
    return {"weight": OuterProducts(x_BTI, g_BTO), "bias": Whole(_sum_positions(g, 1))}


def _embedding(module: nn.Embedding, x: Tensor, g: Tensor) -> dict[str, Contribution]:
    index_BT, g_BTC = x.reshape(len(x), -1), _positions(g)
    if module.padding_idx is not None:
        g_BTC = g_BTC.masked_fill((index_BT == module.padding_idx)[..., None], 0)
    return {"weight": Rows(index_BT, g_BTC)}


def _layer_norm(module: nn.LayerNorm, x: Tensor, g: Tensor) -> dict[str, Contribution]:
    normalized = layer_norm(_at_least_float32(x), module.normalized_shape, eps=module.eps)
    num_dims = len(module.normalized_shape)
    return {"weight": Whole(_sum_positions(normalized.mul_(g), num_dims)), "bias": Whole(_sum_positions(g, num_dims))}


def _rms_norm(module: nn.RMSNorm, x: Tensor, g: Tensor) -> dict[str, Contribution]:
    normalized = rms_norm(_at_least_float32(x), list(module.normalized_shape), eps=module.eps)
    return {"weight": Whole(_sum_positions(normalized.mul_(g), len(module.normalized_shape)))}


def _by_vmap(call: ModuleCall, g: Tensor) -> dict[str, Contribution]:
    """Differentiate the module alone, on each example alone."""
    module = call.module
    parameters = {own: module.get_parameter(own).detach() for own in call.names}

    def gradient(x: Tensor, g: Tensor) -> dict[str, Tensor]:
        args = tuple(x[None] if isinstance(value, Tensor) else value for value in call.args)
        kwargs = {key: x[None] if isinstance(value, Tensor) else value for key, value in call.kwargs.items()}
        pull_back = vjp(lambda p: functional_call(module, p, args, kwargs), parameters)[1]
        return pull_back(g[None])[0]

    largest = max(parameter.numel() for parameter in parameters.values())
    gradients = vmap(gradient, chunk_size=max(1, _VMAP_ELEMENTS // largest))(call.input, g)
    return {own: Whole(gradients[own]) for own in parameters}


_CLOSED_FORMS: dict[type[nn.Module], Callable[..., dict[str, Contribution]]] = {
    nn.Linear: _linear,
    Conv1D: _conv1d,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
}


def _positions(tensor: Tensor) -> Tensor:
    """View [B, ..., N] as [B, T, N]."""
    return tensor.reshape(len(tensor), -1, tensor.shape[-1])


def _sum_positions(tensor: Tensor, num_dims: int) -> Tensor:
    """Sum [B, ..., *parameter] over all between the first and the last `num_dims` dimensions."""
    shape = tensor.shape[tensor.dim() - num_dims :]
    return _at_least_float32(tensor).reshape(len(tensor), -1, *shape).sum(1)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

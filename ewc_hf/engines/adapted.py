"""Which matrices of a model low-rank adapters change, as PEFT's LoRA does: `W + sum_k s_k B_k A_k`, `W` frozen."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .parameters import named_parameters, unwrap

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

_STARTS_AT_THE_BASE = (True, False, "gaussian", "eva", "orthogonal")
"""Initializations of PEFT that leave the base weights alone; others move a part of them into the adapter."""


@dataclass(frozen=True)
class Adapter:
    """One adapter of a matrix: its change is `scale * B A`.

    Attributes:
        a_name: canonical name of `A`.
        b_name: canonical name of `B`.
        a: [rank, inputs].
        b: [outputs, rank].
        scale: `lora_alpha / rank`, or with rsLoRA `lora_alpha / sqrt(rank)`.
    """

    a_name: str
    b_name: str
    a: nn.Parameter
    b: nn.Parameter
    scale: float


@dataclass(frozen=True)
class AdaptedMatrix:
    """A frozen weight and the adapters that change it.

    Attributes:
        name: canonical name of the weight.
        adapters: those in use.
        transposed: whether the weight is [inputs, outputs], as in `Conv1D` and `Embedding`.
    """

    name: str
    adapters: tuple[Adapter, ...]
    transposed: bool

    @property
    def parameter_names(self) -> frozenset[str]:
        """Of all its adapters."""
        return frozenset(name for adapter in self.adapters for name in (adapter.a_name, adapter.b_name))

    @property
    def shape(self) -> torch.Size:
        """Of the weight."""
        outputs, inputs = len(self.adapters[0].b), self.adapters[0].a.shape[1]
        return torch.Size((inputs, outputs) if self.transposed else (outputs, inputs))

    def change(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Return rows of `Delta W = sum_k s_k B_k A_k`, [rows, inputs]."""
        return sum((k.b.data[rows].to(dtype) @ k.a.data.to(dtype)).mul_(k.scale) for k in self.adapters)  # type: ignore[return-value]


def adapted_matrices(model: nn.Module) -> dict[str, AdaptedMatrix]:
    """Return the matrices that adapters change, by canonical name; none where PEFT is not in use.

    Raises:
        ValueError: a weight that is trained beside its adapter, trained adapters that are not LoRA's of linear layers
            or embeddings, a variant such as DoRA, whose change is not `s B A`, or an initialization that takes a part
            out of the base weights, as PiSSA's.
    """
    if sys.modules.get("peft") is None:
        return {}
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    names = {parameter: name for name, parameter in named_parameters(model).items()}
    matrices = {}
    for place, layer in unwrap(model).named_modules():
        if isinstance(layer, BaseTunerLayer):
            adapters: tuple[Adapter, ...] = ()
            if isinstance(layer, LoraLayer):
                _require_plain(unwrap(model), layer, place)
                adapters = tuple(_adapters(layer, names))
            _require_known(layer, place, adapters)
            if adapters:
                weight = names[layer.get_base_layer().weight]
                matrices[weight] = AdaptedMatrix(weight, adapters, _is_transposed(layer))
    return matrices


def _require_known(layer: Any, place: str, adapters: Sequence[Adapter]) -> None:
    """Check that nothing else of a layer is trained than adapters."""
    known = {parameter for adapter in adapters for parameter in (adapter.a, adapter.b)}
    for name, parameter in layer.named_parameters():
        if parameter.requires_grad and parameter not in known and name != "base_layer.bias":
            raise ValueError(
                "expected a frozen weight, and adapters that change it by `scale * B A`, LoRA's of linear layers and "
                f"embeddings, got {type(layer).__name__} at '{place}', of which '{name}' is trained; use such a LoRA, "
                "or train without a consolidation"
            )


def _adapters(layer: LoraLayer, names: Mapping[nn.Parameter, str]) -> Iterator[Adapter]:
    for key in layer.active_adapters:
        if key in layer.lora_A and isinstance(layer.lora_A[key], nn.Linear):
            pair = layer.lora_A[key].weight, layer.lora_B[key].weight
        elif key in layer.lora_embedding_A:
            pair = layer.lora_embedding_A[key], layer.lora_embedding_B[key]
        else:
            continue
        a, b = pair
        yield Adapter(names[a], names[b], a, b, float(layer.scaling[key]))


def _require_plain(model: Any, layer: LoraLayer, place: str) -> None:
    for key in layer.active_adapters:
        if key in layer.lora_variant:
            raise ValueError(
                f"expected plain LoRA, whose change of a weight is `scale * B A`, got "
                f"{type(layer.lora_variant[key]).__name__} at '{place}'; leave out options such as use_dora"
            )
        start = model.peft_config[key].init_lora_weights
        if start not in _STARTS_AT_THE_BASE:
            raise ValueError(
                f"expected adapters beside untouched base weights, got init_lora_weights='{start}', which moves a "
                "part of them into the adapter; use init_lora_weights=True"
            )


def _is_transposed(layer: LoraLayer) -> bool:
    return isinstance(layer.get_base_layer(), nn.Embedding) or bool(layer.fan_in_fan_out)

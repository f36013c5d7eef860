"""Which matrices of a model low-rank adapters change, as PEFT's LoRA does: `W + sum_k s_k B_k A_k`, `W` frozen."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .adapter_names import names_without_adapters
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
        weight: itself; None where a quantized layer has none of this name.
        adapters: those in use.
        transposed: whether the weight is [inputs, outputs], as in `Conv1D` and `Embedding`.
    """

    name: str
    weight: nn.Parameter | None
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
        total: Tensor | None = None
        for adapter in self.adapters:
            a, b = adapter.a.data.to(dtype), adapter.b.data.to(dtype)
            own = (b[rows] @ a).mul_(adapter.scale)
            total = own if total is None else total.add_(own)
        assert total is not None, "an adapted matrix has adapters"
        return total


def adapted_matrices(model: nn.Module) -> dict[str, AdaptedMatrix]:
    """Return the matrices that adapters change, by canonical name; none where PEFT is not in use.

    Raises:
        ValueError: the change of a weight is not that of its trained adapters alone: a weight that is trained beside
            them, or that two adapted layers share; an adapter in use that is frozen; adapters other than LoRA's of
            linear layers and embeddings; a variant such as DoRA; an initialization that takes a part out of the base
            weights, as PiSSA's.
    """
    if sys.modules.get("peft") is None:
        return {}
    from peft.tuners.lora import LoraLayer
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    inner = unwrap(model)
    names = {parameter: name for name, parameter in named_parameters(model).items()}
    without_adapters = names_without_adapters(inner)
    matrices: dict[str, AdaptedMatrix] = {}
    for place, layer in inner.named_modules():
        if isinstance(layer, BaseTunerLayer) and not isinstance(layer, TrainableTokensLayer):
            adapters: tuple[Adapter, ...] = ()
            if isinstance(layer, LoraLayer):
                _require_plain(inner, layer, place)
                adapters = tuple(_adapters(layer, names))
            _require_known(layer, place, adapters)
            if adapters:
                weight = dict(layer.get_base_layer().named_parameters(recurse=False)).get("weight")
                name = without_adapters(f"{place}.base_layer.weight") if weight is None else names[weight]
                if name in matrices:
                    raise ValueError(
                        f"expected one adapted layer a weight, got another of '{name}' at '{place}'; adapt only one "
                        "of the layers that share a weight"
                    )
                matrices[name] = AdaptedMatrix(name, weight, adapters, _is_transposed(layer))
    return matrices


def require_own_copies(model: nn.Module) -> None:
    """Refuse copies that are trained in the place of a weight (`modules_to_save`) which another layer shares.

    The importance is of the shared weight, by its one name: of a copy elsewhere nothing would tell.

    Raises:
        ValueError: there is such a copy.
    """
    if sys.modules.get("peft") is None:
        return
    from peft.utils import ModulesToSaveWrapper

    inner = unwrap(model)
    names = {parameter: name for name, parameter in named_parameters(model).items()}
    without_adapters = names_without_adapters(inner)
    for place, wrapper in inner.named_modules():
        for adapter in wrapper.active_adapters if isinstance(wrapper, ModulesToSaveWrapper) else ():
            copies = dict(wrapper.modules_to_save[adapter].named_parameters())
            for last, original in wrapper.original_module.named_parameters():
                shared = names[original] != without_adapters(f"{place}.original_module.{last}")
                alone = names[copies[last]] == without_adapters(f"{place}.modules_to_save.{adapter}.{last}")
                if shared and alone and copies[last].requires_grad:
                    raise ValueError(
                        f"expected copies of weights that no other layer shares, got one of '{names[original]}' at "
                        f"'{place}'; tie them by `ensure_weight_tying=True` in the adapter's configuration, or leave "
                        "this one out"
                    )


def _require_known(layer: Any, place: str, adapters: Sequence[Adapter]) -> None:
    """Check that nothing else of a layer is trained than adapters, and each of them."""
    known = {parameter for adapter in adapters for parameter in (adapter.a, adapter.b)}
    for name, parameter in layer.named_parameters():
        if parameter.requires_grad and parameter not in known and name != "base_layer.bias":
            raise ValueError(
                "expected a frozen weight, and adapters that change it by `scale * B A`, LoRA's of linear layers and "
                f"embeddings, got {type(layer).__name__} at '{place}', of which '{name}' is trained; use such a LoRA, "
                "or train without a consolidation"
            )
    if frozen := [k.b_name for k in adapters if not (k.a.requires_grad or k.b.requires_grad)]:
        raise ValueError(
            f"expected adapters in use to be trained, got '{frozen[0]}' frozen, which moves the model off what its "
            "base weights are held at; merge it into the base, or take it out of use"
        )


def _adapters(layer: LoraLayer, names: Mapping[nn.Parameter, str]) -> Iterator[Adapter]:
    from peft.tuners.lora.layer import ParamWrapper

    for key in layer.active_adapters if not isinstance(layer, ParamWrapper) else ():
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

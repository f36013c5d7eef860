"""Which tensors are held: canonical names, tied weights once, and this process's part of each parameter.

`LocalParameters` is the one place where training engines differ. Everything above it sees plain tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import torch
import torch.distributed as dist
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from .adapter_names import names_without_adapters
from .processes import sum_over
from .sharding import Part, Sharding, is_sharded, local_part, part_of, sharded_like

_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""What a submodule that `torch.compile` or activation checkpointing wraps puts into the names of its parameters."""


@dataclass(frozen=True)
class LocalParameter:
    """This process's part of one parameter while an engine lends it out.

    Attributes:
        name: canonical name, as in `model.named_parameters()` of the unwrapped model.
        part: where in the parameter the part lies; the tensors below have its shape.
        weight: the weight, outside autograd; in-place writes reach the model.
        grad: its gradient, or None where the last backward left none; in-place writes reach the optimizer.
        group: the optimizer's parameter group (`lr`, `betas`, ...).
        group_index: the position of that group in `optimizer.param_groups`.
        state: the optimizer's state of this parameter (`exp_avg_sq`, `step`, ...); empty before its first step.
    """

    name: str
    part: Part
    weight: Tensor
    grad: Tensor | None
    group: Mapping[str, Any]
    group_index: int
    state: Mapping[str, Any]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside DataParallel, DistributedDataParallel, DeepSpeed and `torch.compile` wrappers."""
    while (inner := extract_model_from_parallel(model, keep_torch_compile=False)) is not model:
        model = inner
    return model


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return a model's parameters by canonical name; tied weights appear once.

    Names are those of the model inside wrappers, and inside PEFT: of a base weight, or of a copy of it that is trained
    in its place (`modules_to_save`), that which it has without adapters.

    FSDP2 leaves some of them gathered after a forward pass; these are sharded again.
    """
    inner = unwrap(model)
    for module in inner.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    without_adapters = names_without_adapters(inner)
    return {_canonical(without_adapters(name)): p for name, p in inner.named_parameters()}


def _canonical(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require a gradient by canonical name.

    Raises:
        ValueError: no parameter requires a gradient.
    """
    parameters = {name: p for name, p in named_parameters(model).items() if p.requires_grad}
    if not parameters:
        raise ValueError(
            "expected a model with trainable parameters, got one whose parameters all have requires_grad=False; "
            "call `model.requires_grad_(True)` or unfreeze the layers to protect"
        )
    return parameters


def whole_shape(parameter: Any) -> torch.Size:
    """Return a parameter's shape, also where ZeRO-3 has left an empty tensor in its place."""
    return parameter.ds_shape if is_in_zero3(parameter) else parameter.shape


def is_in_zero3(parameter: nn.Parameter) -> bool:
    """Tell whether ZeRO-3 has taken the parameter's numbers out of the model."""
    return hasattr(parameter, "ds_shape")


def are_sharded(parameters: Mapping[str, nn.Parameter]) -> bool:
    """Tell whether FSDP2 shards these parameters.

    Raises:
        ValueError: it shards some of them only, or ZeRO-3 holds them.
    """
    sharded = [name for name, p in parameters.items() if is_sharded(p)]
    if sharded and len(sharded) < len(parameters):
        whole = min(parameters.keys() - sharded)
        raise ValueError(
            f"expected all trainable parameters sharded or none, got '{sharded[0]}' sharded and '{whole}' not; let "
            "FSDP2 ignore no parameter"
        )
    if any(is_in_zero3(p) for p in parameters.values()):
        raise ValueError(
            "expected parameters in the model, got ones that ZeRO-3 has taken out of it; load the model before "
            "DeepSpeed is set up, or shard it with FSDP2"
        )
    return bool(sharded)


class SteppedParameters(Protocol):
    """This process's part of each trainable parameter that an optimizer steps, lent out one after another.

    Attributes:
        optimizer: the innermost optimizer, whose hooks surround each step.
        names: of all parameters that it steps, in whatever process.
    """

    optimizer: torch.optim.Optimizer
    names: frozenset[str]

    def __iter__(self) -> Iterator[LocalParameter]:
        """Lend out each part, as it is at this moment."""

    def moving(self) -> Iterator[LocalParameter]:
        """Lend out the parts that a step moves: the next one after a backward pass, or the one that has just ended."""

    def sum_over_processes(self, values: Mapping[str, float]) -> float:
        """Return the sum of a value of each parameter's part, by name, over all parts in all processes."""


class LocalParameters:
    """The parameters themselves, `SteppedParameters` of most engines: whole, or the part that FSDP2 left here.

    Args:
        model: the model as it is trained; engines replace its parameters, so build this when training begins.
        optimizer: the innermost optimizer, whose `state` and `param_groups` are read.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        names = {p: name for name, p in trainable_parameters(model).items()}
        self.optimizer = optimizer
        self._others = {p: name for name, p in named_parameters(model).items() if p not in names}
        self._frozen = [p for group in optimizer.param_groups for p in group["params"] if p in self._others]
        self._num_groups = len(optimizer.param_groups)
        self._held = [
            (names[parameter], parameter, part_of(parameter), index)
            for index, group in enumerate(optimizer.param_groups)
            for parameter in group["params"]
            if parameter in names
        ]
        self.names = frozenset(name for name, *_ in self._held)

    def __iter__(self) -> Iterator[LocalParameter]:
        for name, parameter, part, index in self._held:
            state = self.optimizer.state.get(parameter, {})
            yield LocalParameter(
                name=name,
                part=part,
                weight=local_part(parameter),
                grad=_local(parameter.grad),
                group=self.optimizer.param_groups[index],
                group_index=index,
                state={key: _local(value) for key, value in state.items()},
            )

    def moving(self) -> Iterator[LocalParameter]:
        """Lend out the parts that a step moves: the next one after a backward pass, or the one that has just ended.

        Raises:
            ValueError: it moves parameters of the model, too, that were frozen when training began.
        """
        added = chain.from_iterable(group["params"] for group in self.optimizer.param_groups[self._num_groups :])
        for parameter in chain(self._frozen, added):
            if parameter in self._others and parameter.grad is not None:
                raise ValueError(
                    "expected the parameters that were trainable when training began, got "
                    f"'{self._others[parameter]}' besides, which would move freely; unfreeze it before `train()`"
                )
        return (parameter for parameter in self if parameter.grad is not None)

    def shapes(self) -> dict[str, torch.Size]:
        """Return the shape of each whole parameter by name."""
        return {name: parameter.shape for name, parameter, _, _ in self._held}

    def like_parameters(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this process's parts, by name, as tensors that are sharded like the parameters."""
        parameters = {name: parameter for name, parameter, _, _ in self._held}
        return {name: sharded_like(parameters[name], part) for name, part in parts.items()}

    def sum_over_processes(self, values: Mapping[str, float]) -> float:
        """Return the sum of a value of each parameter's part, by name, over all parts in all processes."""
        totals: dict[dist.ProcessGroup | None, float] = {}
        for name, parameter, _, _ in self._held:
            group = Sharding.of(parameter).group if isinstance(parameter, DTensor) else None
            totals[group] = totals.get(group, 0.0) + values.get(name, 0.0)
        return sum(value if group is None else sum_over(group, value) for group, value in totals.items())


def _local(value: Any) -> Any:
    """Return the local part of a sharded tensor, anything else as it is."""
    return local_part(value) if isinstance(value, DTensor) else value

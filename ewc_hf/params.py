"""Which tensors are held: canonical names, tied weights once, and this rank's part of each parameter.

`LocalParameters` is the one place where training engines differ. Everything above it sees plain tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

_COMPILED = "_orig_mod."
"""What a submodule compiled by `torch.compile` puts into the names of its parameters."""


@dataclass(frozen=True)
class LocalParameter:
    """This rank's part of one parameter while an engine lends it out.

    Attributes:
        name: canonical name, as in `model.named_parameters()` of the unwrapped model.
        weight: the weight, outside autograd; in-place writes reach the model.
        grad: its gradient, or None where the last backward left none; in-place writes reach the optimizer.
        group: the optimizer's parameter group (`lr`, `betas`, ...).
        group_index: the position of that group in `optimizer.param_groups`.
        state: the optimizer's state of this parameter (`exp_avg_sq`, `step`, ...); empty before its first step.
    """

    name: str
    weight: Tensor
    grad: Tensor | None
    group: Mapping[str, Any]
    group_index: int
    state: Mapping[str, Any]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside DataParallel, DistributedDataParallel and `torch.compile` wrappers."""
    while (inner := extract_model_from_parallel(model, keep_torch_compile=False)) is not model:
        model = inner
    return model


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require a gradient by canonical name; tied weights appear once.

    Raises:
        ValueError: no parameter requires a gradient, or a parameter is sharded over ranks.
    """
    named = ((name.replace(_COMPILED, ""), p) for name, p in unwrap(model).named_parameters())
    parameters = {name: p for name, p in named if p.requires_grad}
    if not parameters:
        raise ValueError(
            "expected a model with trainable parameters, got one whose parameters all have requires_grad=False; "
            "call `model.requires_grad_(True)` or unfreeze the layers to protect"
        )
    sharded = [name for name, p in parameters.items() if isinstance(p, DTensor)]
    if sharded:
        raise ValueError(
            f"expected parameters held whole by each rank, got the sharded parameter '{sharded[0]}' "
            f"({len(sharded)} in all); use one process or DistributedDataParallel"
        )
    return parameters


class LocalParameters:
    """This rank's part of each trainable parameter that an optimizer steps, lent out one after another.

    An engine that can only lend copies writes them back when the next one is asked for,
    so finish with one `LocalParameter` before taking the next.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Find each parameter's name and group.

        Args:
            model: the model as it is trained; engines replace its parameters, so build this when training begins.
            optimizer: the innermost optimizer, whose `state` and `param_groups` are read.
        """
        names = {p: name for name, p in trainable_parameters(model).items()}
        self._optimizer = optimizer
        self._held = [
            (names[parameter], parameter, index)
            for index, group in enumerate(optimizer.param_groups)
            for parameter in group["params"]
            if parameter in names
        ]

    def __iter__(self) -> Iterator[LocalParameter]:
        """Lend out each part, as it is at this moment."""
        for name, parameter, index in self._held:
            yield LocalParameter(
                name=name,
                weight=parameter.detach(),
                grad=parameter.grad,
                group=self._optimizer.param_groups[index],
                group_index=index,
                state=self._optimizer.state.get(parameter, {}),
            )


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of the tensors' names, dtypes, shapes and bytes, whatever their order and device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

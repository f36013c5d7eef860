"""A model that is trained in mixed precision computes in the precision of its weights for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from accelerate.utils.operations import ConvertOutputsToFp32
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy

from .parameters import unwrap
from .sharding import device_of


@contextmanager
def in_full_precision(model: nn.Module) -> Iterator[None]:
    """Let a model compute in the precision of its weights: without autocast, and without FSDP2's mixed precision.

    Of autocast, accelerate's around the model's forward and one around this are off. DeepSpeed's half precision is
    that of the weights themselves, and stays.

    Args:
        model: under FSDP2, between two steps: no gradient is waiting to be reduced.
    """
    with (
        _without_wrapped_autocast(unwrap(model)),
        _without_sharded_casts(model),
        torch.autocast(device_of(next(model.parameters())).type, enabled=False),
    ):
        yield


@contextmanager
def _without_wrapped_autocast(model: nn.Module) -> Iterator[None]:
    forward = vars(model).get("forward")
    if forward is not None:
        model.forward = _without_wrappers(forward, model)
    try:
        yield
    finally:
        if forward is not None:
            model.forward = forward


def _without_wrappers(forward: Callable[..., Any], model: nn.Module) -> Callable[..., Any]:
    """Return the forward inside accelerate's wrappers: one of each `Accelerator` that prepared the model."""
    own = forward
    while isinstance(wrapper := getattr(own, "__wrapped__", None), ConvertOutputsToFp32):
        own = wrapper.model_forward.__wrapped__
    return MethodType(own, model) if isinstance(forward, MethodType) else own


@contextmanager
def _without_sharded_casts(model: nn.Module) -> Iterator[None]:
    """Let FSDP2 gather the weights as they are held; PyTorch has no public call for it."""
    states = {}
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
            state = module._get_fsdp_state()
            states[state] = state._mp_policy
    try:
        for state in states:
            _set_policy(state, MixedPrecisionPolicy())
        yield
    finally:
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        for state, policy in states.items():
            _set_policy(state, policy)


def _set_policy(state: Any, policy: MixedPrecisionPolicy) -> None:
    """Change the mixed precision of one sharded module; what it gathers next gets memory of its own type."""
    state._mp_policy = policy
    group = state._fsdp_param_group
    if group is None:
        return
    group.mp_policy = policy
    for parameter in group.fsdp_params:
        parameter.init_dtype_attrs(policy)
        parameter.all_gather_outputs = []
        vars(parameter).pop("_unsharded_param", None)

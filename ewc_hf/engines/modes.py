"""A model in another mode for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from accelerate.utils.operations import ConvertOutputsToFp32
from torch import nn
from transformers import PreTrainedModel

from .parameters import unwrap
from .sharding import device_of


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode, and afterwards each back in the mode it had."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def in_full_precision(model: nn.Module) -> Iterator[None]:
    """Let a model compute in the precision of its weights: without autocast, accelerate's own or one around this.

    FSDP2's `MixedPrecisionPolicy` and DeepSpeed's half precision weights stay as they are.
    """
    inner = unwrap(model)
    forward = vars(inner).get("forward")
    if forward is not None:
        inner.forward = _without_autocast(forward, inner)
    try:
        with torch.autocast(device_of(next(model.parameters())).type, enabled=False):
            yield
    finally:
        if forward is not None:
            inner.forward = forward


def _without_autocast(forward: Callable[..., Any], model: nn.Module) -> Callable[..., Any]:
    """Return the forward inside accelerate's wrappers: one of each `Accelerator` that prepared the model."""
    own = forward
    while isinstance(wrapper := getattr(own, "__wrapped__", None), ConvertOutputsToFp32):
        own = wrapper.model_forward.__wrapped__
    return MethodType(own, model) if isinstance(forward, MethodType) else own


@contextmanager
def without_cache(model: nn.Module) -> Iterator[None]:
    """Keep the models of transformers inside from copying keys and values into a cache that nobody reads."""
    configs = {id(module.config): module.config for module in model.modules() if isinstance(module, PreTrainedModel)}
    before = [(config, config.use_cache) for config in configs.values() if "use_cache" in config.to_dict()]
    for config, _ in before:
        config.use_cache = False
    try:
        yield
    finally:
        for config, use_cache in before:
            config.use_cache = use_cache

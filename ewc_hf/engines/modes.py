"""A model in another mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel


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

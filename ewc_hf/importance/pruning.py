"""Unstructured pruning: the least important weights of a model become zero.

Kutalev & Lapina 2021 (arXiv 2109.10021), section 4, compare importances as criteria of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from transformers.pytorch_utils import Conv1D
from transformers.utils import ExplicitEnum

_LAYERS = (nn.Linear, Conv1D, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class PruningScope(ExplicitEnum, Enum):
    """Among which weights the least important ones are chosen."""

    NETWORK = "network"
    """Those of all layers together."""

    LAYER = "layer"
    """Those of each layer by itself, so that each loses the same share."""


def prunable_layers(model: nn.Module) -> dict[str, Any]:
    """Return the linear and convolutional layers of a model, by the name of the weight that is pruned.

    Biases, norms and embeddings stay whole, and so does an output layer that shares its weight with an embedding.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        f"{name}.weight" if name else "weight": module
        for name, module in model.named_modules()
        if isinstance(module, _LAYERS) and id(module.weight) not in embeddings
    }


def sparsity_of(model: nn.Module) -> float:
    """Return the share of the weights of `prunable_layers` that are zero."""
    weights = [layer.weight for layer in prunable_layers(model).values()]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def require_sparsity(sparsity: float) -> None:
    """Check that a share of weights is one.

    Raises:
        ValueError: it is outside [0, 1].
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"expected a sparsity from 0 to 1, got {sparsity}; 0.8 sets 80% of the weights to zero")


def prune_weights(
    model: nn.Module,
    sparsity: float,
    importance: Mapping[str, Tensor] | None = None,
    scope: PruningScope | str = PruningScope.NETWORK,
) -> None:
    """Set the least important weights of a model's layers to zero, for good.

    Args:
        model: changed in place; it stays a model as any other, with zeros among its weights.
        sparsity: the share of the weights of `prunable_layers` that become zero, from 0 to 1.
        importance: Omega by parameter name; None takes the weights' magnitude.
        scope: "network" or "layer".

    Raises:
        ValueError: sparsity outside [0, 1], no layer to prune, or no importance of a layer's weight's shape.
    """
    scope = PruningScope(scope)
    require_sparsity(sparsity)
    layers = prunable_layers(model)
    if not layers:
        raise ValueError(f"expected linear or convolutional layers, got {type(model).__name__} with none")
    scores = {}
    for name, layer in layers.items():
        score = layer.weight.detach().abs() if importance is None else importance.get(name)
        if score is None or score.shape != layer.weight.shape:
            got = "none" if score is None else f"the shape {tuple(score.shape)}"
            raise ValueError(
                f"expected the importance of '{name}', {tuple(layer.weight.shape)}, got {got}; estimate it on this "
                "model, with all of its parameters trainable"
            )
        scores[name] = score.to(layer.weight.device, torch.float32)
    if scope is PruningScope.NETWORK:
        prune.global_unstructured(
            [(layer, "weight") for layer in layers.values()],
            pruning_method=prune.L1Unstructured,
            importance_scores={(layer, "weight"): scores[name] for name, layer in layers.items()},
            amount=float(sparsity),
        )
    else:
        for name, layer in layers.items():
            prune.l1_unstructured(layer, "weight", float(sparsity), importance_scores=scores[name])
    for layer in layers.values():
        prune.remove(layer, "weight")

"""The term in single weights, `H = diag(Omega)`: Elastic Weight Consolidation as it is usually written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from ..engines import Cut, Part, SteppedParameters
from .held import HeldConsolidation, Remembers
from .kernels import add_penalty_gradient, penalty_value, proximal_step
from .quadratic import Lent
from .step_size import step_size

logger = logging.get_logger(__name__)


class Diagonal:
    """Importance and anchor of single weights, where their weights are: the `Term` of each kernel in `kernels.py`.

    Args:
        consolidation: importance and anchor by parameter name; of a stored one no more than this process's part is
            read.
        parameters: those that the optimizer steps; the ones that the consolidation tells of belong to this term.
        bfloat16: round the importance to bfloat16, and hold the anchor in it where that loses nothing.
        offload: leave importance and anchor in the host's memory, from where each step reads them.
        fused: whether `torch.compile` makes one kernel of a step.

    Attributes:
        names: of its parameters.
        importance: this process's part of Omega, as it is held.
        anchor: this process's part of `w*`, as it is held.
    """

    def __init__(
        self,
        consolidation: Remembers,
        parameters: SteppedParameters,
        bfloat16: bool = False,
        offload: bool = False,
        fused: bool = False,
    ) -> None:
        self.names = parameters.names & consolidation.importance.keys()
        self.importance: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}
        self._fused, self._is_rounded = fused, bfloat16
        self._let_go = frozenset(consolidation.importance.keys() - self.names)
        if isinstance(consolidation, HeldConsolidation):
            self._let_go |= consolidation.let_go
        self._shapes = {name: torch.Size(consolidation.importance[name].shape) for name in self.names}
        self._parts: dict[str, Part] = {}
        for parameter in parameters:
            if parameter.name in self.names:
                weight = parameter.weight
                self._parts[parameter.name] = parameter.part
                importance = parameter.part.of(consolidation.importance[parameter.name])
                anchor = parameter.part.of(consolidation.anchor[parameter.name])
                if anchor.dtype.itemsize >= weight.dtype.itemsize:
                    anchor = anchor.to(weight.dtype)
                if bfloat16:
                    importance = importance.bfloat16()
                    rounded = anchor.bfloat16()
                    anchor = rounded if torch.equal(rounded.to(anchor), anchor) else anchor
                device = torch.device("cpu") if offload else weight.device
                pinned = offload and weight.is_cuda
                self.importance[parameter.name] = placed(importance, device, pinned)
                self.anchor[parameter.name] = placed(anchor, device, pinned)
                if torch.finfo(weight.dtype).bits < 32:
                    logger.warning_once(
                        f"The weights are {weight.dtype}: pulls below their precision round away. "
                        "Keep them in float32 and train with bf16=True for the full effect."
                    )

    def held(self, metadata: dict[str, Any]) -> HeldConsolidation:
        """Return all that this process holds, without a copy, as a consolidation with this metadata."""
        elsewhere, nothing = Part(0, torch.Size((0,))), torch.empty(0)

        def cuts(tensors: dict[str, Tensor]) -> dict[str, Cut]:
            return {
                name: Cut(shape, self._parts.get(name, elsewhere), tensors.get(name, nothing))
                for name, shape in self._shapes.items()
            }

        return HeldConsolidation(cuts(self.importance), cuts(self.anchor), metadata, self._is_rounded, self._let_go)

    def values(self, lent: Lent, ewc_lambda: float, alphas: Sequence[float]) -> dict[str, Tensor]:
        """Return `lambda/2 sum Omega / (1 + alpha lambda Omega) (w - w*)^2` of each parameter."""
        return {
            name: penalty_value(p.weight, self.anchor[name], self.importance[name], ewc_lambda, alphas[p.group_index])
            for name, p in lent.items()
            if name in self.names
        }

    def add_gradient(self, lent: Lent, ewc_lambda: float, alphas: Sequence[float], loss_scale: float) -> None:
        """Add `loss_scale * lambda Omega / (1 + alpha lambda Omega) (w - w*)` to each gradient."""
        for name, p in lent.items():
            if name in self.names and p.grad is not None:
                anchor, omega, alpha = self.anchor[name], self.importance[name], alphas[p.group_index]
                add_penalty_gradient(p.grad, p.weight, anchor, omega, ewc_lambda, alpha, loss_scale, self._fused)

    def pull(self, lent: Lent, ewc_lambda: float, optimizer: torch.optim.Optimizer) -> None:
        """Pull each weight towards its anchor: `w <- w + c (w* - w)`, `c = a lambda Omega / (1 + a lambda Omega)`."""
        for name, p in lent.items():
            if name in self.names:
                anchor, omega, step = self.anchor[name], self.importance[name], step_size(optimizer, p)
                proximal_step(p.weight, anchor, omega, ewc_lambda, step, self._fused)


def placed(tensor: Tensor, device: torch.device, pinned: bool) -> Tensor:
    """Move a tensor and not what it was cut from; what a GPU reads from the host is pinned, so as not to wait."""
    tensor = tensor.to(device)
    if tensor.untyped_storage().nbytes() > tensor.nbytes:
        tensor = tensor.clone()
    return tensor.pin_memory() if pinned else tensor

"""The penalty coupled to a model and its optimizer, one pass over memory per optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ExplicitEnum, logging

from .consolidation import NATS_PER_TOKEN, Consolidation
from .params import SteppedParameters, trainable_parameters, whole_shape
from .penalty import add_penalty_gradient, penalty_value, proximal_step
from .shards import Tensors
from .step_size import require_readable_step, step_size
from .stored import StoredConsolidation

logger = logging.get_logger(__name__)


class Coupling(ExplicitEnum):
    """How the penalty acts on the weights."""

    LOSS = "loss"
    """Its closed-form gradient is added to the task's, before clipping: the paper's form."""

    DECOUPLED = "decoupled"
    """A proximal step follows the optimizer's step, like AdamW's decoupled weight decay."""


class CoupledPenalty:
    """The penalty of one training run.

    Attributes:
        alphas: alpha of each parameter group, learning rates; 0 where the penalty is plain.
        importance: this process's part of Omega, as it is held.
        anchor: this process's part of `w*`, as it is held.
    """

    def __init__(
        self,
        consolidation: Consolidation | StoredConsolidation,
        parameters: SteppedParameters,
        coupling: Coupling,
        ewc_lambda: float,
        alphas: Sequence[float],
        bfloat16: bool = False,
        offload: bool = False,
        fused: bool = False,
    ) -> None:
        """Put this process's part of importance and anchor beside its part of the weights.

        Args:
            consolidation: importance and anchor by parameter name; of a stored one no more than the part is read.
            parameters: the model's as it is trained.
            coupling: how the penalty acts.
            ewc_lambda: lambda; for Fisher a pure number, one predicted nat of forgetting per nat of task loss.
            alphas: of each parameter group; read by the `loss` coupling.
            bfloat16: round the importance to bfloat16, and hold the anchor in it where that loses nothing.
            offload: leave importance and anchor in the host's memory, from where each step reads them.
            fused: whether `torch.compile` makes one kernel of a step.

        Raises:
            ValueError: `decoupled` with an optimizer whose step cannot be read, or one that steps no weight of the
                consolidation.
        """
        if coupling is Coupling.DECOUPLED:
            require_readable_step(parameters.optimizer)
        self.alphas = list(alphas)
        self._coupling, self._lambda, self._fused = coupling, ewc_lambda, fused
        self._predicts_nats = consolidation.metadata["unit"] == NATS_PER_TOKEN
        self._parameters = parameters
        self.importance: Tensors = {}
        self.anchor: Tensors = {}
        for parameter in parameters:
            if parameter.name in consolidation.importance:
                weight = parameter.weight
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
                self.importance[parameter.name] = _placed(importance, device, pinned)
                self.anchor[parameter.name] = _placed(anchor, device, pinned)
                if torch.finfo(weight.dtype).bits < 32:
                    logger.warning_once(
                        f"The weights are {weight.dtype}: pulls below their precision round away. "
                        "Keep them in float32 and train with bf16=True for the full effect."
                    )
        if parameters.names.isdisjoint(consolidation.importance):
            raise ValueError(
                f"expected an optimizer that steps weights of the consolidation, got "
                f"{type(parameters.optimizer).__name__} with none of them; layer-wise optimizers, which step during "
                "the backward, cannot be used"
            )

    def add_gradient(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """Add the closed-form gradient to every gradient that the backward left, where the coupling is `loss`.

        Args:
            scaler: of the loss, under fp16: the gradients carry its scale until they are clipped.
        """
        if self._coupling is Coupling.LOSS:
            loss_scale = 1.0 if scaler is None else scaler.get_scale()
            for p in self._parameters.stepped():
                if p.grad is not None and p.name in self.importance:
                    anchor, omega, alpha = self.anchor[p.name], self.importance[p.name], self.alphas[p.group_index]
                    add_penalty_gradient(p.grad, p.weight, anchor, omega, self._lambda, alpha, loss_scale, self._fused)

    def pull(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Take the proximal step, where the coupling is `decoupled`: a post-hook of the optimizer's step.

        A `GradScaler` calls a fused optimizer's `step()` even where it found an infinite gradient, and leaves
        `found_inf` on it; such a step moved nothing and pulls nothing.
        """
        found_inf = getattr(optimizer, "found_inf", None)
        if self._coupling is not Coupling.DECOUPLED or (found_inf is not None and found_inf.item() != 0):
            return
        for p in self._parameters.stepped():
            if p.name in self.importance:
                anchor, omega, step = self.anchor[p.name], self.importance[p.name], step_size(optimizer, p)
                proximal_step(p.weight, anchor, omega, self._lambda, step, self._fused)

    def values(self) -> dict[str, float]:
        """Return what is logged: the penalty and, where importance is in nats, the forgetting that it predicts."""
        alphas = self.alphas if self._coupling is Coupling.LOSS else [0.0] * len(self.alphas)
        logs = {"ewc_penalty": self._value(self._lambda, alphas)}
        if self._predicts_nats:
            logs["ewc_predicted_forgetting"] = self._value(1.0, [0.0] * len(self.alphas))
        return logs

    def _value(self, ewc_lambda: float, alphas: Sequence[float]) -> float:
        values = {
            p.name: penalty_value(
                p.weight, self.anchor[p.name], self.importance[p.name], ewc_lambda, alphas[p.group_index]
            )
            for p in self._parameters
            if p.name in self.importance
        }
        return self._parameters.sum_over_processes({name: value.item() for name, value in values.items()})


def _placed(tensor: Tensor, device: torch.device, pinned: bool) -> Tensor:
    """Move a tensor; what a GPU reads from the host's memory is pinned, so that reading it does not wait."""
    tensor = tensor.to(device)
    return tensor.pin_memory() if pinned else tensor


def require_matching_model(consolidation: Consolidation | StoredConsolidation, model: nn.Module) -> None:
    """Check that a consolidation belongs to a model; warn of weights that move freely.

    Raises:
        ValueError: no trainable parameter has an importance, or a shape differs.
    """
    parameters = trainable_parameters(model)
    shared = parameters.keys() & consolidation.importance.keys()
    if not shared:
        raise ValueError(
            f"expected parameters named as in the consolidation, such as '{next(iter(consolidation.importance))}', "
            f"got only others, such as '{next(iter(parameters))}'; a wrapper like PEFT puts a prefix before the "
            "names: train the model itself, or estimate the importance on the wrapped model"
        )
    for name in sorted(shared):
        expected, got = tuple(consolidation.importance[name].shape), tuple(whole_shape(parameters[name]))
        if expected != got:
            raise ValueError(
                f"expected '{name}' of shape {expected} as in the consolidation, got {got}; estimate the importance "
                "again after resizing the model"
            )
    if free := sorted(parameters.keys() - shared):
        logger.warning(f"{len(free)} trainable parameters have no importance and move freely, such as '{free[0]}'")

"""The penalty coupled to a model and its optimizer, one pass over memory per optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ExplicitEnum, logging

from ..engines import SteppedParameters, adapted_matrices
from .quadratic import PulledTerm, Term
from .step_size import require_readable_step

logger = logging.get_logger(__name__)


class Coupling(ExplicitEnum):
    """How the penalty acts on the weights.

    >>> args = EWCConfig("out", ewc_coupling=Coupling.LOSS)
    """

    LOSS = "loss"
    """Its closed-form gradient is added to the task's, before clipping: the paper's form."""

    DECOUPLED = "decoupled"
    """A proximal step follows the optimizer's step, like AdamW's decoupled weight decay."""


def coupling_of(given: Coupling | str | None, model: nn.Module) -> Coupling:
    """Return how a penalty acts on a model: as is given, or by default `decoupled`, on low-rank adapters `loss`.

    Args:
        given: None for the default.
        model: as it is trained.

    Raises:
        ValueError: `decoupled` on adapters, or adapters that cannot be held (`adapted_matrices`).
    """
    has_adapters = bool(adapted_matrices(model))
    if given is None:
        return Coupling(Coupling.LOSS if has_adapters else Coupling.DECOUPLED)
    if has_adapters and given == Coupling.DECOUPLED:
        raise ValueError(
            "expected ewc_coupling='loss' on low-rank adapters, got 'decoupled', whose proximal steps of B and of A "
            "held no more at equal task loss and took 1.3 times a step; leave ewc_coupling out (and use no DeepSpeed)"
        )
    return Coupling(given)


class CoupledPenalty:
    """The penalty of one training run: the sum of its terms.

    Args:
        terms: what the penalty is a sum of; no parameter is in two of them.
        parameters: those that the optimizer steps.
        coupling: how the penalty acts.
        ewc_lambda: lambda; for Fisher a pure number, one predicted nat of forgetting per nat of task loss.
        alphas: of each parameter group, learning rates, 0 where the penalty is plain; read by coupling `loss`.
        predicts_forgetting: whether the terms are in nats per token, so that with lambda 1 they predict forgetting.

    Attributes:
        alphas: of each parameter group.

    Raises:
        ValueError: `decoupled` with an optimizer whose step cannot be read, or one that steps no weight of a term.
        TypeError: `decoupled` with a term that has no proximal step.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        parameters: SteppedParameters,
        coupling: Coupling,
        ewc_lambda: float,
        alphas: Sequence[float],
        predicts_forgetting: bool = False,
    ) -> None:
        if coupling is Coupling.DECOUPLED:
            require_readable_step(parameters.optimizer)
            if unpulled := [type(term).__name__ for term in terms if not isinstance(term, PulledTerm)]:
                raise TypeError(f"expected terms with a proximal step for 'decoupled', got {unpulled[0]}")
        self._pulled = [term for term in terms if isinstance(term, PulledTerm)]
        names = [name for term in terms for name in term.names]
        assert len(set(names)) == len(names), "a parameter belongs to one term"
        if not names:
            raise ValueError(
                f"expected an optimizer that steps weights of the consolidation, got "
                f"{type(parameters.optimizer).__name__} with none of them; layer-wise optimizers, which step during "
                "the backward, cannot be used"
            )
        self.alphas = list(alphas)
        self._terms, self._parameters = terms, parameters
        self._coupling, self._lambda, self._predicts_forgetting = coupling, ewc_lambda, predicts_forgetting

    def add_gradient(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """Add the closed-form gradient to every gradient that the backward left, where the coupling is `loss`.

        Args:
            scaler: of the loss, under fp16: the gradients carry its scale until they are clipped.
        """
        if self._coupling is Coupling.LOSS:
            loss_scale = 1.0 if scaler is None else scaler.get_scale()
            lent = {p.name: p for p in self._parameters.moving()}
            self._tell_of_overshooting()
            for term in self._terms:
                term.add_gradient(lent, self._lambda, self.alphas, loss_scale)

    def pull(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Take the proximal step, where the coupling is `decoupled`: a post-hook of the optimizer's step.

        A `GradScaler` calls a fused optimizer's `step()` even where it found an infinite gradient, and leaves
        `found_inf` on it; such a step moved nothing and pulls nothing.
        """
        found_inf = getattr(optimizer, "found_inf", None)
        if self._coupling is Coupling.DECOUPLED and (found_inf is None or found_inf.item() == 0):
            lent = {p.name: p for p in self._parameters.moving()}
            for term in self._pulled:
                term.pull(lent, self._lambda, optimizer)

    def _tell_of_overshooting(self) -> None:
        for group, alpha in zip(self._parameters.optimizer.param_groups, self.alphas, strict=False):
            if isinstance(group["lr"], float) and 0 < alpha < 0.999 * group["lr"]:
                logger.warning_once(
                    f"The learning rate, {group['lr']:g}, is above the alpha of the stabilization, {alpha:g}: steps "
                    "may overshoot the anchor. Set ewc_alpha to the highest learning rate of the schedule."
                )

    def values(self) -> dict[str, float]:
        """Return what is logged: the penalty and, where its terms are in nats, the forgetting that they predict."""
        plain = [0.0] * len(self.alphas)
        logs = {"ewc_penalty": self._value(self._lambda, self.alphas if self._coupling is Coupling.LOSS else plain)}
        if self._predicts_forgetting:
            logs["ewc_predicted_forgetting"] = self._value(1.0, plain)
        return logs

    def _value(self, ewc_lambda: float, alphas: Sequence[float]) -> float:
        lent = {p.name: p for p in self._parameters}
        values: dict[str, Tensor] = {}
        for term in self._terms:
            values |= term.values(lent, ewc_lambda, alphas)
        return self._parameters.sum_over_processes({name: value.item() for name, value in values.items()})

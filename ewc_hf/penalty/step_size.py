"""How far an optimizer moves a weight per unit of gradient, at this weight and this moment.

The decoupled coupling needs this step, called `a`: with any other its stationary point is not that of
`L_task + lambda/2 sum Omega (w - w*)^2`, and lambda loses its unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, optim

from ..engines import LocalParameter

_DEEPSPEED = ("DeepSpeedCPUAdam", "FusedAdam")
"""DeepSpeed's optimizers, whose step and state are those of torch's Adam; it puts them in the place of that."""


@dataclass(frozen=True)
class StepSize:
    """`a = numerator / (sqrt(second_moment / bias_correction) + eps)`; without second moment, `a = numerator`.

    Attributes:
        numerator: the learning rate, or under SGD `lr * (1 - dampening) / (1 - momentum)`.
        second_moment: Adam's running mean of squared gradients, of the weight's shape.
        bias_correction: `1 - beta2^step`, a scalar where the optimizer keeps `step`.
        eps: Adam's epsilon.
    """

    numerator: float
    second_moment: Tensor | None = None
    bias_correction: Tensor | float = 1.0
    eps: float = 0.0


def require_readable_step(optimizer: optim.Optimizer) -> None:
    """Check that the optimizer's step is one that `step_size` knows.

    Raises:
        ValueError: the optimizer is not SGD, Adam or AdamW of torch, nor DeepSpeed's Adam.
    """
    kind = type(optimizer)
    is_deepspeeds = kind.__name__ in _DEEPSPEED and kind.__module__.startswith("deepspeed.")
    if not isinstance(optimizer, optim.SGD | optim.Adam) and not is_deepspeeds:
        raise ValueError(
            "expected SGD, Adam or AdamW of torch.optim, or DeepSpeed's Adam, for ewc_coupling='decoupled', which "
            f"needs the optimizer's own step per weight, got {kind.__module__}.{kind.__qualname__}; use "
            "ewc_coupling='loss'"
        )


def step_size(optimizer: optim.Optimizer, parameter: LocalParameter) -> StepSize:
    """Return `a` of one parameter, right after the optimizer's step, in units of weight per unit of gradient.

        SGD:           a = lr * (1 - dampening) / (1 - momentum)
        Adam, AdamW:   a = lr / (sqrt(v_hat) + eps),    v_hat = v / (1 - beta2^step)    (amsgrad: the maximum of v)

    Args:
        optimizer: an optimizer that `require_readable_step` accepts.
        parameter: one of its parameters, with the state that the step left.
    """
    group, learning_rate = parameter.group, float(parameter.group["lr"])
    if isinstance(optimizer, optim.SGD):
        if group["momentum"] == 0:
            return StepSize(learning_rate)
        return StepSize(learning_rate * (1 - group["dampening"]) / (1 - group["momentum"]))
    state = parameter.state
    second_moment = state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"]
    log_beta2 = math.log(group["betas"][1]) if group["betas"][1] > 0 else -math.inf
    step = state["step"]
    if isinstance(step, int) or step.is_cpu:
        bias_correction: Tensor | float = -math.expm1(int(step) * log_beta2)
    else:  # a number would have to be waited for
        bias_correction = -(step.float() * log_beta2).expm1()
    return StepSize(
        numerator=learning_rate,
        second_moment=second_moment,
        bias_correction=bias_correction,
        eps=group["eps"],
    )

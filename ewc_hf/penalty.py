r"""The penalty of Elastic Weight Consolidation: its value, its gradient and its proximal step, without autograd.

    P(w) = lambda/2 \sum_i Omega_i (w_i - w*_i)^2                                                  (plain)
    P(w) = lambda/2 \sum_i Omega_i / (1 + alpha lambda Omega_i) (w_i - w*_i)^2                     (stabilized)

Source: Kirkpatrick et al. 2017, eq. 3 (plain); Kutalev & Lapina 2021 (arXiv 2109.10021), section 3 (stabilized).

Each function works on one parameter, in place and in chunks: on the CPU they fit a cache, on accelerators they bound
the memory. Each has a `_reference` twin that reads like its formula.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .step_size import StepSize

_CHUNK_ON_CPU = 1 << 16
_CHUNK_ON_ACCELERATOR = 1 << 24


def displacement(weight: Tensor, anchor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `w - w*` in `dtype`; both are compared as they are held, in the weight's own precision."""
    return weight.to(dtype) - anchor.to(dtype)


def saturate(strength: Tensor, alpha: float) -> Tensor:
    """Return `x / (1 + alpha x)` in place of `x = strength`: 0 at 0, `1/alpha` at infinity, finite always."""
    if alpha == 0:
        return strength.clamp_(max=torch.finfo(strength.dtype).max)
    return strength.reciprocal_().add_(alpha).reciprocal_()


def penalty_value(weight: Tensor, anchor: Tensor, importance: Tensor, ewc_lambda: float, alpha: float) -> Tensor:
    """Return `lambda/2 sum Omega / (1 + alpha lambda Omega) (w - w*)^2`, a scalar of the importance's dtype.

    Args:
        weight: `w`, any shape.
        anchor: `w*`, of the weight's shape and dtype.
        importance: Omega, of the weight's shape, float32 or float64.
        ewc_lambda: lambda; 1 gives the quadratic form itself.
        alpha: a learning rate; 0 gives plain EWC.
    """
    total = torch.zeros((), dtype=importance.dtype, device=weight.device)
    for w, a, omega in _chunks(weight, anchor, importance):
        coefficient = saturate(_scaled(omega, ewc_lambda), alpha)
        total += coefficient.mul_(displacement(w, a, omega.dtype).square_()).sum()
    return total / 2


def penalty_value_reference(w: Tensor, anchor: Tensor, omega: Tensor, ewc_lambda: float, alpha: float) -> Tensor:
    """Read like the formula of `penalty_value`."""
    return (ewc_lambda / 2 * omega / (1 + alpha * ewc_lambda * omega) * (w - anchor) ** 2).sum()


def add_penalty_gradient(
    grad: Tensor,
    weight: Tensor,
    anchor: Tensor,
    importance: Tensor,
    ewc_lambda: float,
    alpha: float,
    loss_scale: float,
) -> None:
    """Add `loss_scale * lambda Omega / (1 + alpha lambda Omega) (w - w*)` to the gradient, in place.

    Args:
        grad: the gradient of the scaled task loss, of the weight's shape.
        weight: `w`.
        anchor: `w*`, of the weight's dtype.
        importance: Omega, float32 or float64.
        ewc_lambda: lambda.
        alpha: a learning rate; 0 gives plain EWC. Under plain SGD with this learning rate the step is the
            backward-Euler step of the penalty, which never overshoots.
        loss_scale: what the loss was multiplied with (fp16), else 1.
    """
    for g, w, a, omega in _chunks(grad, weight, anchor, importance):
        coefficient = saturate(_scaled(omega, ewc_lambda), alpha)
        if loss_scale != 1:
            coefficient.mul_(loss_scale)
        g.add_(coefficient.mul_(displacement(w, a, omega.dtype)))


def penalty_gradient_reference(w: Tensor, anchor: Tensor, omega: Tensor, ewc_lambda: float, alpha: float) -> Tensor:
    """Read like the formula of `add_penalty_gradient`, without the loss scale."""
    return ewc_lambda * omega / (1 + alpha * ewc_lambda * omega) * (w - anchor)


def proximal_step(weight: Tensor, anchor: Tensor, importance: Tensor, ewc_lambda: float, step: StepSize) -> None:
    """Pull the weight towards its anchor in place: `w <- w + c (w* - w)`, `c = a lambda Omega / (1 + a lambda Omega)`.

    This minimizes `P(u) + (u - w)^2 / (2 a)` over `u`, so it cannot overshoot: `0 <= c <= 1` for every lambda.

    Args:
        weight: `w`, right after the optimizer's step.
        anchor: `w*`, of the weight's dtype.
        importance: Omega, float32 or float64.
        ewc_lambda: lambda.
        step: `a`, the optimizer's own step per unit of gradient.
    """
    moments = () if step.second_moment is None else (step.second_moment,)
    for w, a, omega, *moment in _chunks(weight, anchor, importance, *moments):
        pull = _scaled(omega, ewc_lambda * step.numerator)
        for v in moment:
            pull.div_(v.to(omega.dtype).div(step.bias_correction).sqrt_().add_(step.eps))
        coefficient = saturate(pull, alpha=1)
        if w.dtype == coefficient.dtype:
            w.lerp_(a, coefficient)
        else:
            w.copy_(torch.lerp(w.to(omega.dtype), a.to(omega.dtype), coefficient))


def proximal_step_reference(w: Tensor, anchor: Tensor, omega: Tensor, ewc_lambda: float, a: Tensor) -> Tensor:
    """Read like the formula of `proximal_step`, with `a` given; returns the pulled weight."""
    c = a * ewc_lambda * omega / (1 + a * ewc_lambda * omega)
    return w + c * (anchor - w)


def _scaled(importance: Tensor, factor: float) -> Tensor:
    """Return `factor * Omega`; a factor past the dtype's range counts as its largest number, so 0 stays 0."""
    return importance.mul(min(factor, torch.finfo(importance.dtype).max))


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield views of equally many elements of each tensor; a tensor that is not contiguous comes whole."""
    if all(tensor.is_contiguous() for tensor in tensors):
        size = _CHUNK_ON_CPU if tensors[0].device.type == "cpu" else _CHUNK_ON_ACCELERATOR
        yield from zip(*(tensor.view(-1).split(size) for tensor in tensors), strict=True)
    else:
        yield tensors

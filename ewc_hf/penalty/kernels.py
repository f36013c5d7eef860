r"""The penalty of Elastic Weight Consolidation: its value, its gradient and its proximal step, without autograd.

    P(w) = lambda/2 \sum_i Omega_i (w_i - w*_i)^2                                                  (plain)
    P(w) = lambda/2 \sum_i Omega_i / (1 + alpha lambda Omega_i) (w_i - w*_i)^2                     (stabilized)

Source: Kirkpatrick et al. 2017, eq. 3 (plain); Kutalev & Lapina 2021 (arXiv 2109.10021), section 3 (stabilized).

Each function works on one parameter, in place and in chunks, which fit a cache or, where `torch.compile` fuses the
kernel so that each number is read once, bound the memory. Each has a `_reference` twin that reads like its formula.

The kernels divide by a compliance, the inverse of a strength. So they meet no overflow and no 0/0, whatever lambda:

    lambda Omega / (1 + alpha lambda Omega) = 1 / (alpha + 1 / (lambda Omega))
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import torch
from torch import Tensor

from ..engines import displacement, in_chunks
from .step_size import StepSize

_WORTH_FUSING = 1 << 16
"""Smaller parameters, such as biases, take less time than the call of a compiled kernel."""


def penalty_value(weight: Tensor, anchor: Tensor, importance: Tensor, ewc_lambda: float, alpha: float) -> Tensor:
    """Return `lambda/2 sum Omega / (1 + alpha lambda Omega) (w - w*)^2`, a scalar, in float32 or float64.

    Args:
        weight: `w`, any shape.
        anchor: `w*`, of the weight's shape.
        importance: Omega, of the weight's shape.
        ewc_lambda: lambda; 1 gives the quadratic form itself.
        alpha: a learning rate; 0 gives plain EWC.
    """
    dtype = _compute_dtype(weight, importance)
    total = torch.zeros((), dtype=dtype, device=weight.device)
    if ewc_lambda > 0:
        inverse_lambda, alpha_tensor = positive(1 / ewc_lambda, dtype), positive(alpha, dtype)
        for w, a, omega in in_chunks(weight, anchor, importance):
            compliance = inverse_lambda / omega.to(dtype) + alpha_tensor
            total += displacement(w, a, dtype).square_().div_(compliance).sum()
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
    loss_scale: float = 1.0,
    fused: bool = False,
) -> None:
    """Add `loss_scale * lambda Omega / (1 + alpha lambda Omega) (w - w*)` to the gradient, in place.

    Args:
        grad: the gradient of the scaled task loss, of the weight's shape.
        weight: `w`.
        anchor: `w*`.
        importance: Omega.
        ewc_lambda: lambda.
        alpha: a learning rate; 0 gives plain EWC. Under plain SGD with this learning rate the step is the
            backward-Euler step of the penalty, which never overshoots.
        loss_scale: what the loss was multiplied with (fp16), else 1.
        fused: whether `torch.compile` makes one kernel of it, where the weight is large.
    """
    if ewc_lambda > 0:
        dtype = _compute_dtype(weight, importance)
        scalars = positive(1 / ewc_lambda / loss_scale, dtype), positive(alpha / loss_scale, dtype)
        fused &= weight.numel() >= _WORTH_FUSING
        kernel = _compiled(_gradient_kernel) if fused else _gradient_kernel
        for g, w, a, omega in in_chunks(grad, weight, anchor, importance, fused=fused):
            kernel(g, w, a, omega, *scalars)


def _gradient_kernel(g: Tensor, w: Tensor, a: Tensor, omega: Tensor, inverse_lambda: Tensor, alpha: Tensor) -> None:
    dtype = alpha.dtype
    g.addcdiv_(displacement(w, a, dtype), (inverse_lambda / omega.to(dtype)).add_(alpha))


def penalty_gradient_reference(w: Tensor, anchor: Tensor, omega: Tensor, ewc_lambda: float, alpha: float) -> Tensor:
    """Read like the formula of `add_penalty_gradient`, without the loss scale."""
    return ewc_lambda * omega / (1 + alpha * ewc_lambda * omega) * (w - anchor)


def proximal_step(
    weight: Tensor, anchor: Tensor, importance: Tensor, ewc_lambda: float, step: StepSize, fused: bool = False
) -> None:
    """Pull the weight towards its anchor in place: `w <- w + c (w* - w)`, `c = a lambda Omega / (1 + a lambda Omega)`.

    This minimizes `P(u) + (u - w)^2 / (2 a)` over `u`, so it cannot overshoot: `0 <= c <= 1` for every lambda.

    Args:
        weight: `w`, right after the optimizer's step.
        anchor: `w*`.
        importance: Omega.
        ewc_lambda: lambda.
        step: `a`, the optimizer's own step per unit of gradient.
        fused: whether `torch.compile` makes one kernel of it, where the weight is large.
    """
    dtype = _compute_dtype(weight, importance)
    strength = ewc_lambda * step.numerator
    if strength < torch.finfo(dtype).tiny:
        return
    fused &= weight.numel() >= _WORTH_FUSING
    kernel = _compiled(_proximal_kernel) if fused else _proximal_kernel
    if step.second_moment is None:
        compliance = positive(1 / strength, dtype)
        for w, a, omega in in_chunks(weight, anchor, importance, fused=fused):
            kernel(w, a, omega, compliance)
    else:
        slope = positive(1 / (strength * step.bias_correction**0.5), dtype)
        offset = positive(step.eps / strength, dtype)
        for w, a, omega, v in in_chunks(weight, anchor, importance, step.second_moment, fused=fused):
            kernel(w, a, omega, offset, v, slope)


def _proximal_kernel(w: Tensor, a: Tensor, omega: Tensor, offset: Tensor, *moment: Tensor) -> None:
    """`c = Omega / (Omega + 1 / (a lambda))`, with `1 / (a lambda) = offset + slope sqrt(v)`."""
    omega = omega.to(offset.dtype)
    if moment:
        v, slope = moment
        denominator = v.to(offset.dtype).sqrt().mul_(slope).add_(offset).add_(omega)
    else:
        denominator = omega + offset
    coefficient = torch.div(omega, denominator, out=denominator)
    if w.dtype == a.dtype == coefficient.dtype:
        w.lerp_(a, coefficient)
    else:
        w.copy_(torch.lerp(w.to(offset.dtype), a.to(offset.dtype), coefficient))


def proximal_step_reference(w: Tensor, anchor: Tensor, omega: Tensor, ewc_lambda: float, a: Tensor) -> Tensor:
    """Read like the formula of `proximal_step`, with `a` given; returns the pulled weight."""
    c = a * ewc_lambda * omega / (1 + a * ewc_lambda * omega)
    return w + c * (anchor - w)


@cache
def _compiled(kernel: Callable[..., None]) -> Callable[..., None]:
    return torch.compile(kernel, dynamic=True)


def _compute_dtype(weight: Tensor, importance: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(weight.dtype, importance.dtype), torch.float32)


def positive(number: float | Tensor, dtype: torch.dtype) -> Tensor:
    """Return a scalar that is neither zero nor infinite in `dtype`; a tensor, so that no kernel is compiled for it."""
    if isinstance(number, Tensor):
        limits = torch.finfo(dtype)
        return number.to(dtype).clamp(limits.tiny, limits.max)
    return _positive_constant(number, dtype)


@lru_cache(maxsize=64)
def _positive_constant(number: float, dtype: torch.dtype) -> Tensor:
    """A step needs the same few scalars for each of its parameters."""
    return positive(torch.tensor(number, dtype=torch.float64), dtype)

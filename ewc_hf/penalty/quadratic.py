r"""The seam of the penalty, which is a sum of terms: quadratic forms, each on some of the parameters.

    P(w) = \sum_terms lambda/2 (w - w*)^T H (w - w*)                                    (plain)
           with H (1 + alpha lambda H)^{-1} in place of H                               (stabilized)

A term holds this process's parts of its `H` and `w*`. `coupling` goes over terms and never asks what kind they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..engines import LocalParameter

Lent = Mapping[str, LocalParameter]
"""This process's parts of the parameters that a step moves, by name, while the engine lends them out."""


class Term(Protocol):
    """A quadratic form on some of the parameters that an optimizer steps; each parameter belongs to one term.

    Attributes:
        names: of those parameters, in whatever process their numbers are.
    """

    names: frozenset[str]

    def values(self, lent: Lent, ewc_lambda: float, alphas: Sequence[float]) -> dict[str, Tensor]:
        """Return the value of this process's parts by parameter, each a scalar.

        Args:
            lent: all parameters of the process.
            ewc_lambda: lambda; 1 gives the quadratic form itself.
            alphas: alpha of each parameter group; 0 where the penalty is plain.
        """

    def add_gradient(self, lent: Lent, ewc_lambda: float, alphas: Sequence[float], loss_scale: float) -> None:
        """Add `loss_scale` times the gradient of the value to each parameter's `grad`, in place.

        Args:
            lent: those that have a gradient.
            ewc_lambda: lambda.
            alphas: alpha of each parameter group.
            loss_scale: what the task loss was multiplied with (fp16), else 1.
        """


@runtime_checkable
class PulledTerm(Term, Protocol):
    """A term that has a proximal step."""

    def pull(self, lent: Lent, ewc_lambda: float, optimizer: torch.optim.Optimizer) -> None:
        """Take the proximal step of the plain value, by the optimizer's own step sizes, in place.

        Args:
            lent: those that the optimizer's step has just moved, with the state that it left.
            ewc_lambda: lambda.
            optimizer: one whose step `step_size` can read.
        """

r"""The term in low-rank adapters, `Delta W = \sum_k s_k B_k A_k` beside a frozen `W*`: EWC of the merged weights.

    P(A, B) = lambda/2 \sum_ij Omega_ij (Delta W)_ij^2                                            (plain)
    G = dP/d(Delta W) = lambda Omega * Delta W,    dP/dA_k = s_k B_k^T G,    dP/dB_k = s_k G A_k^T

and Omega / (1 + alpha lambda Omega) in place of Omega where it is stabilized. The anchor is the frozen weight itself,
so none is held; the importance is that of the adapted matrices only.

Coupling `loss` only: a proximal step of `B` and then of `A`, each by its own ridge regression, held no more at equal
task loss where it was measured, and took 1.3 times a step (recipes/results/forgetting_study).

Shapes: O outputs, I inputs, N rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..engines import AdaptedMatrix, Cut, LocalParameters, Part, Rows, SteppedParameters, is_sharded
from .diagonal import placed
from .held import Remembers
from .kernels import positive
from .quadratic import Lent

_BLOCK = 1 << 22
"""Numbers of `Delta W` that are held at once."""


class LowRank:
    """Importance of the matrices that adapters change: a `Term` on the adapters' parameters.

    Args:
        consolidation: importance by the names of the adapted weights.
        matrices: that adapters change; those that the consolidation tells of belong to this term.
        parameters: those that the optimizer steps.
        bfloat16: round the importance to bfloat16.
        offload: leave it in the host's memory, from where each step reads it.

    Attributes:
        names: of the adapters' parameters that are trained.

    Raises:
        ValueError: adapters that an engine shards.
    """

    def __init__(
        self,
        consolidation: Remembers,
        matrices: Mapping[str, AdaptedMatrix],
        parameters: SteppedParameters,
        bfloat16: bool = False,
        offload: bool = False,
    ) -> None:
        self._matrices = [matrix for name, matrix in matrices.items() if name in consolidation.importance]
        self.names = parameters.names & frozenset().union(*(matrix.parameter_names for matrix in self._matrices))
        if self.names:
            _require_whole(parameters, self._matrices)
        self._importance: dict[str, Tensor] = {}
        for matrix in self._matrices:
            whole = Part(0, matrix.shape)
            omega, weight = whole.of(consolidation.importance[matrix.name]), matrix.adapters[0].b
            omega_OI = omega.T.contiguous() if matrix.transposed else omega
            omega_OI = omega_OI.bfloat16() if bfloat16 else omega_OI
            device = torch.device("cpu") if offload else weight.device
            self._importance[matrix.name] = placed(omega_OI, device, offload and weight.is_cuda)

    def frozen(self, anchors: Mapping[str, Rows | Cut]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield frozen weight, anchor and importance of each matrix, [O, I], unless it is quantized.

        Args:
            anchors: by name.
        """
        for matrix in self._matrices:
            anchor, shape = anchors[matrix.name], matrix.shape
            frozen = matrix.weight
            if frozen is not None and frozen.is_floating_point() and frozen.shape == shape == torch.Size(anchor.shape):
                weight, whole = frozen.data, Part(0, shape).of(anchor)
                if matrix.transposed:
                    weight, whole = weight.T, whole.T
                yield weight, whole, self._importance[matrix.name]

    def values(self, lent: Lent, ewc_lambda: float, alphas: Sequence[float]) -> dict[str, Tensor]:
        """Return `lambda/2 sum Omega / (1 + alpha lambda Omega) (Delta W)^2` of each matrix, by a name of its own."""
        values = {}
        for matrix in self._of(lent):
            name, alpha = self._alpha(matrix, lent, alphas)
            total = torch.zeros((), dtype=self._dtype(matrix), device=matrix.adapters[0].b.device)
            for _, change_NI, strength_NI in self._blocks(matrix, ewc_lambda, alpha):
                total += change_NI.square_().mul_(strength_NI).sum()
            values[name] = total / 2
        return values

    def add_gradient(self, lent: Lent, ewc_lambda: float, alphas: Sequence[float], loss_scale: float) -> None:
        """Add `loss_scale` times the gradient in closed form to those of `A` and `B`."""
        for matrix in self._of(lent):
            _, alpha = self._alpha(matrix, lent, alphas)
            for rows, change_NI, strength_NI in self._blocks(matrix, ewc_lambda, alpha):
                gradient_NI = change_NI.mul_(strength_NI)
                for adapter in matrix.adapters:
                    scale, dtype = adapter.scale * loss_scale, gradient_NI.dtype
                    if adapter.b_name in lent and (grad := lent[adapter.b_name].grad) is not None:
                        grad[rows] += (scale * (gradient_NI @ adapter.a.data.to(dtype).T)).to(grad)
                    if adapter.a_name in lent and (grad := lent[adapter.a_name].grad) is not None:
                        grad += (scale * (adapter.b.data[rows].to(dtype).T @ gradient_NI)).to(grad)

    def _of(self, lent: Lent) -> Iterator[AdaptedMatrix]:
        """Yield the matrices of which a parameter is lent."""
        for matrix in self._matrices:
            if not matrix.parameter_names.isdisjoint(lent):
                yield matrix

    def _alpha(self, matrix: AdaptedMatrix, lent: Lent, alphas: Sequence[float]) -> tuple[str, float]:
        """Return the matrix's first `B` that is lent, or else `A`, and the alpha of its group."""
        names = [k.b_name for k in matrix.adapters] + [k.a_name for k in matrix.adapters]
        name = next(name for name in names if name in lent)
        return name, alphas[lent[name].group_index]

    def _blocks(
        self, matrix: AdaptedMatrix, ewc_lambda: float, alpha: float
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield rows, their `Delta W`, and `lambda Omega / (1 + alpha lambda Omega)` of them, as new tensors.

        Args:
            matrix: that is adapted.
            ewc_lambda: lambda; at 0 there are none.
            alpha: a learning rate, or 0.
        """
        if ewc_lambda == 0:
            return
        omega, dtype = self._importance[matrix.name], self._dtype(matrix)
        num_rows = max(1, _BLOCK // omega.shape[1])
        inverse_lambda, alpha_tensor = positive(1 / ewc_lambda, dtype), positive(alpha, dtype)
        for first in range(0, len(omega), num_rows):
            rows = slice(first, first + num_rows)
            change_NI = matrix.change(rows, dtype)
            compliance_NI = (inverse_lambda / omega[rows].to(change_NI)).add_(alpha_tensor)
            yield rows, change_NI, compliance_NI.reciprocal_()

    def _dtype(self, matrix: AdaptedMatrix) -> torch.dtype:
        return torch.promote_types(matrix.adapters[0].b.dtype, torch.float32)


def low_rank_value_reference(
    a: Tensor, b: Tensor, scale: float, omega_OI: Tensor, ewc_lambda: float, alpha: float
) -> Tensor:
    """Read like the formula of the term, for one adapter."""
    change = scale * b @ a
    return (ewc_lambda / 2 * omega_OI / (1 + alpha * ewc_lambda * omega_OI) * change**2).sum()


def _require_whole(parameters: SteppedParameters, matrices: Sequence[AdaptedMatrix]) -> None:
    tensors = [p for m in matrices for adapter in m.adapters for p in (m.weight, adapter.a, adapter.b)]
    is_whole = not any(tensor is not None and is_sharded(tensor) for tensor in tensors)
    if not is_whole or not isinstance(parameters, LocalParameters):
        raise ValueError(
            "expected adapters, and the weights that they adapt, whole in each process, got ones that FSDP2 or "
            "DeepSpeed shards; train them with DistributedDataParallel"
        )

r"""The term in low-rank adapters, `Delta W = \sum_k s_k B_k A_k` beside a frozen `W*`: EWC of the merged weights.

    P(A, B) = lambda/2 \sum_ij Omega_ij (Delta W)_ij^2                                            (plain)
    G = dP/d(Delta W) = lambda Omega * Delta W,    dP/dA_k = s_k B_k^T G,    dP/dB_k = s_k G A_k^T

and Omega / (1 + alpha lambda Omega) in place of Omega where it is stabilized. The anchor is the frozen weight itself,
so none is held; the importance is that of the adapted matrices only.

Shapes: O outputs, I inputs, R rank of an adapter, P pairs of its columns, N rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..engines import AdaptedMatrix, Adapter, Cut, LocalParameters, Part, Rows, SteppedParameters, is_sharded
from .diagonal import placed
from .held import Remembers
from .kernels import positive
from .quadratic import Lent
from .step_size import StepSize, step_size

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

    def pull(self, lent: Lent, ewc_lambda: float, optimizer: torch.optim.Optimizer) -> None:
        """Take the proximal step of each `B` given all else, and then that of each `A`: ridge regressions.

        With `a` the optimizer's step per unit of gradient at each weight of a row `b` of `B`, and with the row's
        `omega` and `Delta w`, `P + sum_r (u_r - b_r)^2 / (2 a_r)` is least over `u`, in `R x R` systems, at

            u = b - (diag(1/a) + lambda s^2 A diag(omega) A^T)^{-1} lambda s A (omega * Delta w)

        and likewise for a column of `A`, with `B` in the place of `A`. Neither overshoots, whatever lambda.
        """
        for matrix in self._of(lent):
            for adapter in matrix.adapters:
                if adapter.b_name in lent:
                    self._pull(matrix, adapter, ewc_lambda, step_size(optimizer, lent[adapter.b_name]), of_a=False)
                if adapter.a_name in lent:
                    self._pull(matrix, adapter, ewc_lambda, step_size(optimizer, lent[adapter.a_name]), of_a=True)

    def _pull(self, matrix: AdaptedMatrix, adapter: Adapter, ewc_lambda: float, step: StepSize, of_a: bool) -> None:
        """Pull the rows of `B`, or the columns of `A`, which are its rows where all is seen transposed."""
        pulled_OR, other_RI = (adapter.a.data.T, adapter.b.data.T) if of_a else (adapter.b.data, adapter.a.data)
        rank, scale, dtype = len(other_RI), adapter.scale, self._dtype(matrix)
        other_RI = other_RI.to(dtype)
        upper = torch.triu_indices(rank, rank, device=other_RI.device)
        products_PI = other_RI[upper[0]] * other_RI[upper[1]]
        for rows, change_NI, strength_NI in self._blocks(matrix, ewc_lambda, 0.0, transposed=of_a):
            root_NR = _step(step, pulled_OR, rows, transposed=of_a).sqrt()
            gradient_NR = scale * ((strength_NI * change_NI) @ other_RI.T).to(root_NR)
            curvature_NP = scale**2 * (strength_NI @ products_PI.T).to(root_NR)
            system_NRR = root_NR.new_zeros(len(root_NR), rank, rank)
            system_NRR[:, upper[0], upper[1]] = system_NRR[:, upper[1], upper[0]] = curvature_NP
            system_NRR = root_NR[:, :, None] * system_NRR * root_NR[:, None, :]
            pulled_OR[rows] -= (root_NR * _solved(system_NRR, root_NR * gradient_NR)).to(pulled_OR)

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
        self, matrix: AdaptedMatrix, ewc_lambda: float, alpha: float, transposed: bool = False
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield rows, their `Delta W`, and `lambda Omega / (1 + alpha lambda Omega)` of them, as new tensors.

        Args:
            matrix: that is adapted.
            ewc_lambda: lambda; at 0 there are none.
            alpha: a learning rate, or 0.
            transposed: whether rows are inputs, in place of outputs.
        """
        if ewc_lambda == 0:
            return
        omega, dtype = self._importance[matrix.name], self._dtype(matrix)
        omega = omega.T if transposed else omega
        num_rows = max(1, _BLOCK // omega.shape[1])
        inverse_lambda, alpha_tensor = positive(1 / ewc_lambda, dtype), positive(alpha, dtype)
        for first in range(0, len(omega), num_rows):
            rows = slice(first, first + num_rows)
            change_NI = matrix.change(rows, dtype, transposed)
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


def _solved(system_NRR: Tensor, right_NR: Tensor) -> Tensor:
    """Return `(1 + system)^{-1} right` of positive semidefinite systems.

    The diagonal's last digits are raised, since in a strong system of little rank rounding would be larger than the 1:
    it would be indefinite, and answers wild in the directions that nothing holds.
    """
    diagonal_NR = system_NRR.diagonal(dim1=1, dim2=2)
    rounding_N1 = 100 * torch.finfo(system_NRR.dtype).eps * diagonal_NR.sum(1, keepdim=True)
    diagonal_NR += 1 + rounding_N1
    lower, _ = torch.linalg.cholesky_ex(system_NRR)
    return torch.cholesky_solve(right_NR[:, :, None], lower)[:, :, 0]


def _step(step: StepSize, like: Tensor, rows: slice, transposed: bool) -> Tensor:
    """Return `a` of rows of a parameter, or of what it is transposed, in float64 where the device has it."""
    dtype = torch.float32 if like.device.type == "mps" else torch.float64
    if step.second_moment is None:
        return torch.full_like(like[rows], step.numerator, dtype=dtype)
    second_moment = step.second_moment.T if transposed else step.second_moment
    return step.numerator / ((second_moment[rows].to(dtype) / step.bias_correction).sqrt() + step.eps)


def _require_whole(parameters: SteppedParameters, matrices: Sequence[AdaptedMatrix]) -> None:
    sharded = any(is_sharded(p) for m in matrices for adapter in m.adapters for p in (adapter.a, adapter.b))
    if sharded or not isinstance(parameters, LocalParameters):
        raise ValueError(
            "expected adapters that are whole in each process, got ones that FSDP2 or DeepSpeed shards; train them "
            "with DistributedDataParallel"
        )

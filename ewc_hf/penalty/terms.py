"""The terms of a penalty on a model: of what is trained itself, and of what adapters change."""

from __future__ import annotations

from importlib.util import find_spec

from torch import nn

from ..engines import SteppedParameters, adapted_matrices
from .diagonal import Diagonal
from .grown import in_shapes_of
from .held import Remembered
from .low_rank import LowRank


def terms_of(
    consolidation: Remembered,
    model: nn.Module,
    parameters: SteppedParameters,
    bfloat16: bool,
    offload: bool,
    compiled: bool,
) -> tuple[Diagonal, list[LowRank]]:
    """Return the term in single weights and, where there are adapters, the one in these; together they hold all.

    Args:
        consolidation: importance and anchor.
        model: as it is trained.
        parameters: those that the optimizer steps.
        bfloat16: hold the importance in bfloat16, and the anchor where that loses nothing.
        offload: leave both in the host's memory.
        compiled: whether kernels are compiled on any device; on GPUs they are where Triton is installed.

    Raises:
        ValueError: adapters that the penalty cannot take account of (`adapted_matrices`), or that an engine shards; or
            tokens were added, and the consolidation is sharded in memory.
    """
    remembered = in_shapes_of(model, consolidation)
    fused = compiled or (find_spec("triton") is not None and all(p.weight.is_cuda for p in parameters))
    diagonal = Diagonal(remembered, parameters, bfloat16, offload, fused)
    low_rank = LowRank(remembered, adapted_matrices(model), parameters, bfloat16, offload)
    return diagonal, [low_rank] if low_rank.names else []

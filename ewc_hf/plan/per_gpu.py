"""How much memory and traffic fine-tuning with EWC takes on each GPU, engine by engine.

P is the number of trainable parameters, N of GPUs, w the bytes of a number in which an engine computes: 2 under
`bf16=True`, else 4. Weights are loaded in float32, and AdamW keeps two float32 moments. In bytes:

    engine    weights  master  gradients  optimizer  importance  anchor  sent in a step, times (N-1)/N
    one_gpu   4P       -       4P         8P         4P          4P      -
    ddp       4P       -       4P         8P         4P          4P      2 * 4P
    fsdp2     4P/N     -       4P/N       8P/N       4P/N        4P/N    w (2P - rest) + wP
    zero1     wP       4P/N    wP         8P/N       4P/N        4P/N    2wP + wP
    zero2     wP       4P/N    wP/N       8P/N       4P/N        4P/N    2wP + wP
    zero3     wP/N     4P/N    wP/N       8P/N       4P/N        4P/N    w (2P - live) + wP

ZeRO's master is a copy where w is 4, too.

Both sharded engines gather weights for forward and again for backward, except those that they keep: FSDP2 what is
neither in a block nor in an untied embedding (`rest`), ZeRO-3 the last 1e9 (`live`). ZeRO-1 and 2 all-reduce
gradients, where the paper reduce-scatters them. Buffers (`buffers.py`) come on top. Activations are not counted: they
depend on batch and length.

The total adds each column at its largest, which is not always at the same moment. A step is one micro-batch;
accumulating several costs wP more under FSDP2, which then keeps gradients whole. Collectives are taken as rings: a GPU
sends (N-1)/N of what is gathered or scattered, twice that of what is all-reduced. The penalty sends nothing, since
importance and anchor lie where the optimizer steps the weight.

Source: Rajbhandari et al. 2020, "ZeRO", sections 5 and 7; Zhao et al. 2023, "PyTorch FSDP", section 3; dtypes and
collectives as in torch 2.13, accelerate 1.15 and DeepSpeed 0.19, whose settings are those of `accelerate launch`.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers.utils import ExplicitEnum

from ..config import StateDtype
from .buffers import LIVE, autocast_copies, ddp_buffers, fsdp2_buffers, zero1_buffers, zero2_buffers, zero3_buffers
from .model_sizes import ModelSizes


class Engine(ExplicitEnum):
    """What trains on the GPUs."""

    ONE_GPU = "one_gpu"
    """A single process."""

    DDP = "ddp"
    """DistributedDataParallel: every GPU holds everything."""

    FSDP2 = "fsdp2"
    """Every GPU holds a part of each tensor, and gathers the weights of one block after another."""

    ZERO1 = "zero1"
    """DeepSpeed: every GPU holds a part of the optimizer's state and of the float32 weights."""

    ZERO2 = "zero2"
    """DeepSpeed: and a part of the gradients."""

    ZERO3 = "zero3"
    """DeepSpeed: and a part of the weights that it computes with."""


class TrainingPrecision(ExplicitEnum):
    """What forward and backward compute in."""

    BF16 = "bf16"
    """Mixed precision, as `bf16=True` trains."""

    FLOAT32 = "float32"
    """Float32 throughout."""


@dataclass(frozen=True)
class Plan:
    """Bytes that one GPU holds, and `sent`, the bytes that it sends in an optimizer step."""

    weights: float
    master: float
    gradients: float
    optimizer: float
    importance: float
    anchor: float
    buffers: float
    sent: float

    @property
    def total(self) -> float:
        """All that the GPU holds."""
        trained = self.weights + self.master + self.gradients + self.optimizer
        return trained + self.importance + self.anchor + self.buffers


def plan(
    sizes: ModelSizes,
    engine: Engine,
    gpus: int,
    precision: TrainingPrecision,
    state_dtype: StateDtype,
    offload: bool,
) -> Plan:
    """Return the module's table for one engine.

    Args:
        sizes: of the model.
        engine: what trains.
        gpus: N.
        precision: what forward and backward compute in.
        state_dtype: `ewc_state_dtype`; bfloat16 halves the importance, and the anchor of a bfloat16 checkpoint.
        offload: `ewc_offload`, which leaves importance and anchor in the host's memory.

    Raises:
        ValueError: no GPU, or one for an engine that needs more.
    """
    least = 1 if engine is Engine.ONE_GPU else 2
    if gpus < least:
        raise ValueError(
            f"expected {least} or more GPUs for '{engine.value}', got {gpus}; raise --gpus or use one_gpu"
        )
    p, rest, live = sizes.total, sizes.rest, min(sizes.total, LIVE)
    part = p if engine in (Engine.ONE_GPU, Engine.DDP) else p / gpus
    w = 2 if precision is TrainingPrecision.BF16 else 4
    narrow = state_dtype is StateDtype.BFLOAT16
    weights, master, gradients, buffers, rings = {
        Engine.ONE_GPU: (4 * p, 0, 4 * p, autocast_copies(sizes, w), 0),
        Engine.DDP: (4 * p, 0, 4 * p, ddp_buffers(sizes, w), 2 * 4 * p),
        Engine.FSDP2: (4 * part, 0, 4 * part, fsdp2_buffers(sizes, w), w * (2 * p - rest) + w * p),
        Engine.ZERO1: (w * p, 4 * part, w * p, zero1_buffers(p, part, w), 2 * w * p + w * p),
        Engine.ZERO2: (w * p, 4 * part, w * part, zero2_buffers(p, part, w), 2 * w * p + w * p),
        Engine.ZERO3: (w * part, 4 * part, w * part, zero3_buffers(p, part, w), w * (2 * p - live) + w * p),
    }[engine]
    return Plan(
        weights=weights,
        master=master,
        gradients=gradients,
        optimizer=8 * part,
        importance=0 if offload else part * (2 if narrow else 4),
        anchor=0 if offload else part * (2 if narrow and sizes.stored_in_bfloat16 else 4),
        buffers=buffers,
        sent=rings * (gpus - 1) / gpus,
    )

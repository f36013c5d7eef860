"""What engines allocate beside a model's states: the most at one moment of a step, in bytes, on each GPU.

w is the bytes of a number in which the engine computes: 2 under `bf16=True`, else 4. Read in torch 2.13, accelerate
1.15 and DeepSpeed 0.19, with the settings that `accelerate launch` gives them by default, and measured.
"""

from __future__ import annotations

from .model_sizes import ModelSizes

BUCKET = 500_000_000
"""DeepSpeed's `reduce_bucket_size`, in numbers; the bucket is allocated whole, however small the model."""

LIVE = 1_000_000_000
"""ZeRO-3's `stage3_max_live_parameters`, up to which it gathers ahead; its `sub_group_size` is the same number."""


def autocast_copies(sizes: ModelSizes, w: int) -> int:
    """Return `2 cast`: autocast keeps a bfloat16 copy of each float32 weight from forward to backward."""
    return 2 * sizes.cast if w == 2 else 0


def ddp_buffers(sizes: ModelSizes, w: int) -> int:
    """Return `4P`, buckets that gradients are copied to and averaged in, and autocast's copies."""
    return 4 * sizes.total + autocast_copies(sizes, w)


def fsdp2_buffers(sizes: ModelSizes, w: int) -> int:
    """Return the largest `w (2 now + ahead + behind)` over the groups of parameters, as backward goes through them.

    These are the group's gathered weights and their gradients, the weights of the group whose turn is next, and the
    gradients of the group before, which are being reduced. The groups are those that accelerate forms: each block, an
    untied embedding, and the rest; with a tied embedding the rest stays, weights and gradients, all through backward.
    """
    if sizes.embedding:
        groups, held = (sizes.embedding, *sizes.blocks, sizes.rest), 0
    else:
        groups, held = sizes.blocks, 2 * sizes.rest
    turns = zip((0, *groups), groups, (*groups[1:], 0), strict=False)
    return w * (held + max((2 * now + ahead + behind for ahead, now, behind in turns), default=0))


def zero1_buffers(p: int, part: float, w: int) -> float:
    """Return what ZeRO-1 holds beyond its gradients, `wP`, when it reduces them or when it steps.

    Reduced gradients move to the bucket, which is copied, then to this GPU's part. The step flattens the part, then
    turns it into float32: with DeepSpeed's own copies `8P/N`, in either precision.
    """
    bucket = min(p, BUCKET)
    return max(w * (BUCKET - bucket + max(bucket, part)), 8 * part - w * p)


def zero2_buffers(p: int, part: float, w: int) -> float:
    """Return what ZeRO-2 holds beyond its gradients, `wP/N`: the bucket and its copy, or as ZeRO-1 when it steps."""
    return max(w * (BUCKET + min(p, BUCKET)), 8 * part - w * part)


def zero3_buffers(p: int, part: float, w: int) -> float:
    """Return ZeRO-3's bucket, and the larger of what it holds in backward and when it steps.

    In backward these are gathered weights and a copy of the bucket; in the step, of one sub-group after another, the
    flattened gradients and their float32 copy, which in float32 are the same.
    """
    step = min(part, LIVE) * (2 + 4 if w == 2 else 4)
    return w * BUCKET + max(w * (min(p, LIVE) + min(p, BUCKET)), step)

"""Where a model goes for work that is no training: importance and perplexity."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import parse_flag_from_env
from torch import nn
from transformers import PreTrainedModel

from .processes import launched


def place(model: PreTrainedModel) -> nn.Module:
    """Put a model where the launch config wants it: sharded by FSDP2, else whole on each process's own device.

    DeepSpeed shards nothing but a training, so under its launch configs each process holds the model whole.

    Args:
        model: as `from_pretrained` returned it, which under FSDP2 may leave it empty in all but the first process.

    Raises:
        ValueError: FSDP of the first version, or on a CPU, where `accelerate` has none.
    """
    state = launched()
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return model.to(state.device)
    accelerator = Accelerator(cpu=state.device.type == "cpu", mixed_precision="no")  # the weights as they are
    if not accelerator.is_fsdp2:
        raise ValueError(
            f"expected FSDP of version 2 on GPUs, got {accelerator.distributed_type.value} on {state.device.type}; "
            "set 'fsdp_version: 2' in the launch config, or on CPUs launch without FSDP"
        )
    unused = torch.optim.SGD(model.parameters())  # FSDP2 is not prepared without one
    placed: nn.Module = accelerator.prepare(model, unused)[0]
    return placed

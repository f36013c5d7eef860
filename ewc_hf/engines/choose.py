"""The engines that train a model: what each can honour, and where it holds the parameters."""

from __future__ import annotations

from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils.deepspeed import DeepSpeedOptimizerWrapper
from torch import nn
from transformers import Trainer

from .parameters import LocalParameters, SteppedParameters
from .zero import ZeroParameters


def require_engine(trainer: Trainer, adds_gradient: bool) -> None:
    """Check that a trainer's engine lets a penalty act.

    Args:
        trainer: whose accelerator is set up.
        adds_gradient: whether the penalty adds to the gradient before it is clipped: coupling `loss`.

    Raises:
        ValueError: DeepSpeed with coupling `loss`, or the first version of FSDP.
    """
    if trainer.is_deepspeed_enabled and adds_gradient:
        raise ValueError(
            "expected ewc_coupling='decoupled' under DeepSpeed, which clips the gradient and steps within the "
            "backward, got 'loss'; change the coupling, or use DistributedDataParallel or FSDP2"
        )
    if trainer.is_fsdp_enabled and not trainer.accelerator.is_fsdp2:
        raise ValueError(
            "expected FSDP of version 2, got version 1, which hides the weights in flat ones; set "
            "'fsdp_version: 2' in the launch config"
        )


def stepped_parameters(model: nn.Module, optimizer: AcceleratedOptimizer) -> SteppedParameters:
    """Return this process's parts of the parameters that an optimizer steps, under the engine that trains the model.

    Args:
        model: the model as it is trained.
        optimizer: what `accelerate` made of the optimizer.
    """
    if isinstance(optimizer, DeepSpeedOptimizerWrapper):
        return ZeroParameters(model, optimizer.optimizer)
    return LocalParameters(model, optimizer.optimizer)

"""DeepSpeed's ZeRO: its optimizer steps flat tensors in which a process's parts of the parameters lie one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .parameters import LocalParameter, trainable_parameters
from .processes import sum_over
from .sharding import Part


@dataclass(frozen=True)
class _Fragment:
    """Where the part of one parameter lies."""

    name: str
    part: Part
    flat: Tensor
    offset: int
    group_index: int

    def of(self, flat: Tensor) -> Tensor:
        """Return this part of a tensor that is laid out as the flat one."""
        return flat.detach().narrow(0, self.offset, math.prod(self.part.shape))


class ZeroParameters:
    """This process's part of each parameter under ZeRO-1, 2 and 3: of the master weights, which the optimizer steps.

    After the inner optimizer's step DeepSpeed copies the master weights to the model's, so what a hook of that step
    writes reaches the model, with no traffic of its own.

    Args:
        model: the model inside the engine.
        zero_optimizer: DeepSpeed's optimizer around the one that steps.

    Raises:
        ValueError: the engine is not one of ZeRO, keeps the optimizer's state on a disk, or steps some weights with
            another optimizer than this one.
    """

    def __init__(self, model: nn.Module, zero_optimizer: Any) -> None:
        _require_one_stepping_optimizer(zero_optimizer)
        self.optimizer = zero_optimizer.optimizer
        self._process_group = zero_optimizer.dp_process_group
        self._groups = list(self.optimizer.param_groups)
        parameters = trainable_parameters(model)
        self.names = frozenset(parameters)
        fragments = (_fragment(name, p, zero_optimizer) for name, p in parameters.items())
        self._fragments = [fragment for fragment in fragments if fragment is not None]
        if swapped := [fragment.name for fragment in self._fragments if fragment.flat.numel() == 0]:
            raise ValueError(
                f"expected the optimizer's state in memory, got '{swapped[0]}' on a disk; offload it to the CPU"
            )

    def __iter__(self) -> Iterator[LocalParameter]:
        for fragment in self._fragments:
            flat, state = fragment.flat, self.optimizer.state.get(fragment.flat, {})
            yield LocalParameter(
                name=fragment.name,
                part=fragment.part,
                weight=fragment.of(flat),
                grad=None if flat.grad is None else fragment.of(flat.grad),
                group=self._groups[fragment.group_index],
                group_index=fragment.group_index,
                state={
                    key: fragment.of(value) if isinstance(value, Tensor) and value.shape == flat.shape else value
                    for key, value in state.items()
                },
            )

    def moving(self) -> Iterator[LocalParameter]:
        """Lend out the parts that the optimizer moved in the step that has just ended: one flat tensor's."""
        stepping = {id(flat) for group in self.optimizer.param_groups for flat in group["params"]}
        for fragment, parameter in zip(self._fragments, self, strict=True):
            if id(fragment.flat) in stepping and parameter.grad is not None:
                yield parameter

    def sum_over_processes(self, values: Mapping[str, float]) -> float:
        """Return the sum of a value of each parameter's part, by name, over all parts in all processes."""
        return sum_over(self._process_group, sum(values.values()))


def _require_one_stepping_optimizer(zero_optimizer: Any) -> None:
    """Refuse what steps weights without the optimizer whose hook the penalty is: it would not act, without a word."""
    from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    known = type(zero_optimizer) in (BF16_Optimizer, DeepSpeedZeroOptimizer, DeepSpeedZeroOptimizer_Stage3)
    if not known or (type(zero_optimizer) is not BF16_Optimizer and zero_optimizer.zenflow):
        raise ValueError(
            f"expected DeepSpeed with ZeRO stage 1, 2 or 3 alone, got {type(zero_optimizer).__name__}; set 'stage' in "
            "'zero_optimization' and leave out ZenFlow and SuperOffload, or use FSDP2"
        )
    if type(zero_optimizer) is DeepSpeedZeroOptimizer_Stage3 and zero_optimizer.offload_optimizer:
        if set(zero_optimizer.subgroup_to_device.values()) != {"cpu"}:
            raise ValueError(
                "expected all of the optimizer offloaded or nothing, got a part of it; set 'ratio' in "
                "'offload_optimizer' to 1"
            )


def _fragment(name: str, parameter: Any, zero_optimizer: Any) -> _Fragment | None:
    """Return where this process's part of a parameter lies; None where it has none."""
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3

    if isinstance(zero_optimizer, DeepSpeedZeroOptimizer_Stage3):
        position = zero_optimizer.grad_position.get(zero_optimizer.get_param_id(parameter))
        if position is None:  # the optimizer does not step it
            return None
        index, offset, size = position
        start = dist.get_rank(parameter.ds_process_group) * size
        part = Part(start, torch.Size((max(0, min(size, parameter.ds_numel - start)),)))
        flat, group = zero_optimizer.fp32_partitioned_groups_flat[index], zero_optimizer.sub_group_to_group_id[index]
        return _Fragment(name, part, flat, offset, group)
    mapping = getattr(parameter, "_hp_mapping", None)  # none where the optimizer does not step it
    if mapping is None:
        return None
    part = Part(mapping.lp_fragment_address.start, torch.Size((mapping.lp_fragment_address.numel,)))
    group = mapping.param_group_index
    (flat,) = zero_optimizer.optimizer.param_groups[group]["params"]
    return _Fragment(name, part, flat, mapping.hp_fragment_address.start, group)

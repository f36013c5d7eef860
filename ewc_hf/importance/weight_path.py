"""The way that weights go through a training, and how much of the fall of the loss each has taken.

omega_i  = sum over the steps of  -g_i (w_i after the step - w_i before it)
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..engines import LocalParameters, agreed, displacement, in_chunks
from ..storage import Tensors, index_path, open_shards, verify_shards, write_shards

_STEM = "ewc_synaptic"
STATE_NAME = index_path(Path(), _STEM).name
"""The file that a checkpoint holds where the sums of its run are saved."""
_NUM_STEPS = "num_steps"


class WeightPath:
    """The way of the weights through one training.

    Args:
        parameters: the model's as it is trained.

    Attributes:
        num_steps: steps that were taken; one that a `GradScaler` skipped is none.
        hook: before the optimizer's step.

    Raises:
        ValueError: the optimizer steps no weight of the model.
    """

    def __init__(self, parameters: LocalParameters) -> None:
        self.num_steps = 0
        self._parameters = parameters
        self._start: Tensors = {p.name: p.weight.clone() for p in parameters}
        self._accrued: Tensors = {
            name: torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
            for name, weight in self._start.items()
        }
        if not self._start:
            raise ValueError(
                f"expected an optimizer that steps weights of the model, got {type(parameters.optimizer).__name__} "
                "with none of them; layer-wise optimizers, which step during the backward, cannot be used"
            )
        self._in_step = False
        self._gradients: Tensors = {}
        self.hook = parameters.optimizer.register_step_pre_hook(self._before_step)

    def write(self, folder: Path) -> None:
        """Save start, sums and the number of steps as safetensors shards; every process has to call this."""
        tensors = {_NUM_STEPS: torch.tensor(float(self.num_steps), dtype=torch.float64)}
        for kind, parts in self._state().items():
            tensors |= {f"{kind}.{name}": tensor for name, tensor in self._parameters.like_parameters(parts).items()}

        def write() -> None:
            with ExitStack() as stack:
                write_shards(stack, folder, _STEM, tensors, max_shard_size="5GB", collective=True)

        agreed(write)

    def read(self, folder: Path) -> None:
        """Go on from what `write` saved, in whatever number of processes; every one has to call this.

        Raises:
            ValueError: it is not there, is damaged, or is of another model.
        """
        agreed(lambda: _require_sums(folder))
        verify_shards(folder, _STEM, collective=True)
        agreed(lambda: self._copy_from(folder))

    def _copy_from(self, folder: Path) -> None:
        stored = open_shards(folder, _STEM)
        shapes = self._parameters.shapes()
        for kind, parts in self._state().items():
            for p in self._parameters:
                saved = stored.get(f"{kind}.{p.name}")
                if saved is None or saved.shape != shapes[p.name]:
                    raise ValueError(
                        f"expected the sums of '{p.name}' of the same shape in '{folder}', got others; resume with "
                        "the same model and the same frozen parameters"
                    )
                parts[p.name].copy_(p.part.of(saved))
        self.num_steps = int(stored[_NUM_STEPS][...].item())

    def _state(self) -> dict[str, Tensors]:
        return {"start": self._start, "accrued": self._accrued}

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Add `g (w - w_start)` before the step, from which `after_step` subtracts the same product after it.

        The difference is `-g (w_after - w_before)`, without a copy of the weights for the length of the step; and
        the displacement is so small that float32 holds the difference, which it would not for `g w`. Where torch's
        optimizer changes the gradient within its step, a copy is kept until `after_step`.
        """
        found_inf = getattr(optimizer, "found_inf", None)
        self._in_step = found_inf is None or found_inf.item() == 0
        if self._in_step:
            # A fused optimizer may get the gradients scaled, and then unscales them in place within its step.
            grad_scale = getattr(optimizer, "grad_scale", None)
            self._add_products(1.0 if grad_scale is None else 1 / grad_scale.item())
            if any(map(_changes_gradients, optimizer.param_groups)):
                self._gradients = {p.name: p.grad.clone() for p in self._parameters if p.grad is not None}

    def after_step(self) -> None:
        """Complete the step that `_before_step` began, if it was one."""
        if self._in_step:
            self._add_products(-1.0)
            self._gradients.clear()
            self.num_steps += 1
            self._in_step = False

    def _add_products(self, factor: float) -> None:
        """Add `factor g (w - w_start)` to what has accrued."""
        for p in self._parameters:
            if p.grad is not None:
                accrued, start = self._accrued[p.name], self._start[p.name]
                gradient = self._gradients.get(p.name, p.grad)
                for total, g, w, s in in_chunks(accrued, gradient, p.weight, start):
                    total.addcmul_(g, displacement(w, s, total.dtype), value=factor)

    def importance(self, damping: float) -> Tensors:
        """Return Omega in place of what has accrued."""
        for p in self._parameters:
            for total, w, s in in_chunks(self._accrued[p.name], p.weight, self._start[p.name]):
                total.div_(displacement(w, s, total.dtype).square_().add_(damping)).clamp_(min=0)
        return self._parameters.like_parameters(self._accrued)

    def weights(self) -> dict[str, Tensor]:
        """Return the model's own weights by name."""
        return self._parameters.like_parameters({p.name: p.weight for p in self._parameters})


def _require_sums(folder: Path) -> None:
    if not (folder / STATE_NAME).is_file():
        raise ValueError(
            f"expected the sums of Synaptic Intelligence in '{folder}', got none; resume from a checkpoint of a "
            "run that accrued it, or train without"
        )


def _changes_gradients(group: dict[str, Any]) -> bool:
    """Tell whether a step adds to the gradients in place: torch's SGD does that with Nesterov's momentum."""
    return bool(group.get("nesterov")) and group.get("foreach") is not False and not group.get("fused")

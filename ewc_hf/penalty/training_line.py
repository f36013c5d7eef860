"""The straight line from the weights that a training began with to those that it ended with."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn

from ..engines import adapted_matrices, agreed, is_in_zero3, local_part, part_of, trainable_parameters
from ..storage import StoredTensors, Tensors, open_shards, verify_shards, write_shards

_STEM = "start"


class TrainingLine:
    """Moves what a training trains, in place, to a point between its start and its end.

    `w(t) = w_start + t * (w_end - w_start)`, computed in float32 at least and rounded once; at an end it is its bits.
    Of low-rank adapters, whose change `s B A` is 0 at the start, only `B` is moved, since it is linear in that.

    The start lies on disk, from where a resumed training has it too, and each process reads its own part. In memory,
    the host's, is the end only, from `end` on.

    Args:
        model: as it is trained.
        folder: of the start, which each process has to see.

    Raises:
        ValueError: ZeRO-3 has taken the weights out of the model.
    """

    def __init__(self, model: nn.Module, folder: Path) -> None:
        self._parameters = trainable_parameters(model)
        if any(is_in_zero3(parameter) for parameter in self._parameters.values()):
            raise ValueError(
                "expected weights in the model for max_forgetting, got ones that ZeRO-3 has taken out of it; leave it "
                "out and slide the saved model with `ewc-hf interpolate`, or train with FSDP2"
            )
        adapters = [adapter for matrix in adapted_matrices(model).values() for adapter in matrix.adapters]
        self._from_zero = {adapter.b_name for adapter in adapters}
        self._resting = {adapter.a_name for adapter in adapters}
        self._folder = folder
        self._start: StoredTensors = {}
        self._end: Tensors = {}

    def write_start(self) -> None:
        """Store the weights as they are now; every process of the training has to call this."""

        def write() -> None:
            with ExitStack() as stack:
                weights = {name: p.detach() for name, p in self._parameters.items()}
                write_shards(stack, self._folder, _STEM, weights, max_shard_size="5GB", collective=True)

        agreed(write)

    def open_start(self) -> None:
        """Find what was stored; every process of the training has to call this.

        Raises:
            ValueError: it is not there, is damaged or is of another model, or adapters were no identity.
        """
        agreed(self._require_start)
        verify_shards(self._folder, _STEM, collective=True)
        agreed(self._find_start)

    def end(self) -> None:
        """Keep the weights as they are now as the end."""
        self._end = {name: local_part(p).cpu().clone() for name, p in self._parameters.items()}

    def move_to(self, t: float) -> None:
        """Set the weights to `w(t)`; 0 is the start, 1 the end."""
        for name, parameter in self._parameters.items():
            weight, end = local_part(parameter), self._end[name]
            if t == 1 or name in self._resting:
                weight.copy_(end)
            elif name in self._from_zero:
                weight.copy_(t * end)
            else:
                start = part_of(parameter).of(self._start[name])
                dtype = torch.promote_types(start.dtype, torch.float32)
                weight.copy_(start if t == 0 else torch.lerp(start.to(dtype), end.to(dtype), t))

    def _require_start(self) -> None:
        if not self._folder.is_dir():
            raise ValueError(
                f"expected the weights that this run began with in '{self._folder}', got no such folder; resume with "
                "the output folder of a run that had max_forgetting from its beginning, where each process sees it"
            )

    def _find_start(self) -> None:
        self._start = open_shards(self._folder, _STEM)
        for name, parameter in self._parameters.items():
            if name not in self._start or self._start[name].shape != parameter.shape:
                raise ValueError(
                    f"expected '{name}' of shape {tuple(parameter.shape)} in '{self._folder}', got another or none; "
                    "resume with the same model and the same frozen parameters"
                )
            if name in self._from_zero and self._start[name][...].any():
                raise ValueError(
                    f"expected adapters that begin at 0 for max_forgetting, got '{name}' of others; merge them into "
                    "the base and train new ones"
                )

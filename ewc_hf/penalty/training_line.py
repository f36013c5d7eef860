"""The straight line from the weights that a training began with to those that it ended with."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn

from ..engines import AdaptedMatrix, adapted_matrices, agreed, is_in_zero3, local_part, part_of, trainable_parameters
from ..storage import StoredTensors, Tensors, index_path, open_shards, sha256, verify_shards, write_shards

_STEM = "start"
_AFTERWARDS = "leave max_forgetting out, and slide the saved model with `ewc-hf interpolate`"


class TrainingLine:
    """Moves what a training trains, in place, to a point between its start and its end.

    `w(t) = w_start + t * (w_end - w_start)`, computed in float32 at least and rounded once; at an end it is its bits.
    Of a low-rank adapter, whose change `s B A` is 0 at the start since one of both is, the other one rests at its end:
    the change is linear in the one that moves.

    The start lies on disk, from where a resumed training has it too, and each process reads its own part. In memory,
    the host's, is the end only, from `end` on.

    Args:
        model: as it is trained.
        folder: of the start, which each process has to see.

    Raises:
        ValueError: ZeRO-3 has taken the weights out of the model, or its adapters are others than LoRA's.
    """

    def __init__(self, model: nn.Module, folder: Path) -> None:
        self._parameters = trainable_parameters(model)
        if any(is_in_zero3(parameter) for parameter in self._parameters.values()):
            raise ValueError(
                "expected weights in the model for max_forgetting, got ones that ZeRO-3 has taken out of it; "
                f"{_AFTERWARDS}, or train with FSDP2"
            )
        self._matrices = _adapted(model)
        self._resting: set[str] = set()
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

    def open_start(self, recorded: str | None = None) -> str:
        """Find what was stored, and return its fingerprint; every process of the training has to call this.

        Args:
            recorded: the fingerprint that it has to have; None where it was stored at this moment.

        Raises:
            ValueError: it is not there, is damaged, is that of another run or model, or adapters were no identity.
        """
        found = agreed(lambda: self._fingerprint(recorded))
        verify_shards(self._folder, _STEM, collective=True)
        agreed(self._find_start)
        return found

    def end(self) -> None:
        """Keep the weights as they are now as the end."""
        self._end = {name: local_part(p).cpu().clone() for name, p in self._parameters.items()}

    def move_to(self, t: float) -> None:
        """Set the weights to `w(t)`; 0 is the start, 1 the end."""
        for name, parameter in self._parameters.items():
            weight, end = local_part(parameter), self._end[name]
            if t == 0:
                weight.copy_(part_of(parameter).of(self._start[name]))
            elif t == 1 or name in self._resting:
                weight.copy_(end)
            else:
                start = part_of(parameter).of(self._start[name])
                dtype = torch.promote_types(start.dtype, torch.float32)
                weight.copy_(torch.lerp(start.to(dtype), end.to(dtype), t))

    def _fingerprint(self, recorded: str | None) -> str:
        index = index_path(self._folder, _STEM)
        found = sha256(index) if index.is_file() else None
        if found is None or (recorded is not None and found != recorded):
            got = "none" if found is None else "those of another run"
            raise ValueError(
                f"expected the weights that this run began with in '{self._folder}', got {got}; resume a run that had "
                "max_forgetting from its beginning, in its own output_dir, which each process sees"
            )
        return found

    def _find_start(self) -> None:
        self._start = open_shards(self._folder, _STEM)
        for name, parameter in self._parameters.items():
            if name not in self._start or self._start[name].shape != parameter.shape:
                raise ValueError(
                    f"expected '{name}' of shape {tuple(parameter.shape)} in '{self._folder}', got another or none; "
                    "resume with the same model and the same frozen parameters"
                )
        for adapter in (adapter for matrix in self._matrices for adapter in matrix.adapters):
            pair = (adapter.b_name, adapter.a_name)
            zero = next((name for name in pair if name in self._start and not self._start[name][...].any()), None)
            if zero is None:
                raise ValueError(
                    f"expected adapters that change nothing at the beginning, B or A being 0, got '{pair[0]}' of "
                    f"others; {_AFTERWARDS}"
                )
            self._resting.update(name for name in pair if name != zero)


def _adapted(model: nn.Module) -> list[AdaptedMatrix]:
    try:
        return list(adapted_matrices(model).values())
    except ValueError as error:
        raise ValueError(f"max_forgetting: {error}; or {_AFTERWARDS}") from error

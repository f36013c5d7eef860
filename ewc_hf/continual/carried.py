"""The state of Adam that runs leave to those after them, as where one optimizer serves them all."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..storage import replaced
from .stack import Stack


class CarriedAdam:
    """What Adam knows of each place in a stack: its steps, and running means of gradients and of their squares.

    The code of Kutalev & Lapina 2021 makes one optimizer and gives each run's network new weights, so that all but
    the first of its runs begin with the state that the one before left.

    Args:
        path: where it is kept, since an interrupted grid goes on from it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def is_known(self) -> bool:
        """Whether a run has left a state."""
        return self._path.is_file()

    def give(self, optimizer: torch.optim.Adam, stack: Stack) -> None:
        """Let an optimizer begin with it; of fewer places than the stack has networks, some serve several.

        Args:
            optimizer: of the stack, before its first step.
            stack: the networks.
        """
        kept = load_file(self._path, device=str(next(stack.parameters()).device))
        for name, parameter in stack.network.named_parameters():
            places = torch.arange(len(stack), device=parameter.device) % len(kept[f"{name}.exp_avg"])
            state = {key: kept[f"{name}.{key}"][places].to(parameter) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": kept[f"{name}.step"].clone(), **state}

    def keep(self, optimizer: torch.optim.Adam, stack: Stack) -> None:
        """Keep what a run has left.

        Args:
            optimizer: of the stack, after its last step.
            stack: the networks.
        """
        left: dict[str, Tensor] = {}
        for name, parameter in stack.network.named_parameters():
            left |= {f"{name}.{key}": tensor.contiguous() for key, tensor in optimizer.state[parameter].items()}
        with replaced(self._path) as temporary:
            save_file(left, temporary)

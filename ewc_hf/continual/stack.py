"""Many small networks at once: one module that holds their parameters in one tensor each.

Shapes: S networks, B pictures each.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap


class Stack(nn.Module):
    """Networks of one architecture, each with its own weights and its own batch.

    A step of all costs one call of each kernel instead of S. Since optimizers and penalties act weight by weight, each
    network goes the way that it would go alone.

    Args:
        networks: of one architecture; the stack holds copies.

    Attributes:
        network: one of them, whose parameters and buffers have a leading dimension S. Their names are the networks'.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        parameters, buffers = stack_module_state(list(networks))
        self.network = copy.deepcopy(networks[0])
        for name, parameter in parameters.items():
            _owner(self.network, name)._parameters[_last(name)] = nn.Parameter(parameter.detach())
        for name, buffer in buffers.items():
            _owner(self.network, name)._buffers[_last(name)] = buffer
        self._shape_of_one = (copy.deepcopy(networks[0]).to("meta"),)  # in a tuple: no submodule

    def __len__(self) -> int:
        """Return how many networks there are."""
        return len(next(self.network.parameters()))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, [S, B, classes], of each network's own pictures, [S, B, H, W]."""
        (of_one,) = self._shape_of_one
        of_one.train(self.training)

        def call(state: dict[str, Tensor], own: Tensor) -> Tensor:
            return functional_call(of_one, state, (own,))

        return vmap(call)(self._state(), images)

    def member(self, index: int) -> nn.Module:
        """Return one of the networks by itself: a copy."""
        (of_one,) = self._shape_of_one
        network = copy.deepcopy(of_one).to_empty(device=next(self.network.parameters()).device)
        network.load_state_dict({name: tensor[index] for name, tensor in self._state().items()})
        return network.train(self.training)

    def _state(self) -> dict[str, Tensor]:
        return {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}


def _owner(network: nn.Module, name: str) -> nn.Module:
    return network.get_submodule(name.rpartition(".")[0])


def _last(name: str) -> str:
    return name.rpartition(".")[2]

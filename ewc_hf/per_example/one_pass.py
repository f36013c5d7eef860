"""Per-example gradient statistics in one forward and backward pass of a batch.

Hooks keep what each module that owns trainable parameters was given, and receive the gradient of what it returned.
No parameter gets a gradient, and no more than one module's are ever held.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.distributed.tensor import DTensor

from .contributions import Contribution, Statistic, Workspace, add_sharded_statistic, add_statistic
from .layers import ModuleCall


class NotBatchedError(Exception):
    """A module was called in a way that does not tell which part belongs to which example."""


class OnePass:
    """The hooks of one batch.

        with OnePass(model, parameters, sums, num_examples, statistic, workspace) as one_pass:
            one_pass.backward(objective(model, batch))

    Args:
        model: the unwrapped model.
        parameters: its trainable parameters by name.
        sums: by name, added to in place.
        num_examples: B.
        statistic: what is summed over the examples' gradients.
        workspace: where pieces of an example's gradient are formed, kept from batch to batch.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        sums: Mapping[str, Tensor],
        num_examples: int,
        statistic: Statistic,
        workspace: Workspace,
    ) -> None:
        self._workspace = workspace
        self._sums, self._num_examples, self._statistic = sums, num_examples, statistic
        self._parameters = parameters
        names = {p: name for name, p in parameters.items()}
        self._owners: dict[nn.Module, dict[str, str]] = {}
        for module in model.modules():
            own = {key: names[p] for key, p in module.named_parameters(recurse=False) if p in names}
            if own and not any(True for _ in module.children()):
                self._owners[module] = own
        self._recording = True
        self._edges: list[GradientEdge] = []
        self._awaited: Counter[str] = Counter()
        self._arrived: defaultdict[str, list[Contribution]] = defaultdict(list)

    def __enter__(self) -> OnePass:
        self._hooks = [module.register_forward_hook(self._called, with_kwargs=True) for module in self._owners]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def backward(self, values_B: Tensor, others: Iterable[str] = ()) -> dict[str, Tensor]:
        """Add the statistic of each example's gradient of its value.

        Args:
            values_B: one scalar an example, of a forward pass under these hooks.
            others: names of parameters whose ordinary gradient is returned, summed over the examples.

        Returns:
            The gradients of those `others` that took part.
        """
        self._recording = False
        others = list(others)
        inputs: list[Any] = [*self._edges, *(self._parameters[name] for name in others)]
        gradients = torch.autograd.grad(values_B.sum(), inputs, allow_unused=True)
        self._edges.clear()  # they lead to the hooks, and those back here: only the garbage collector would end that
        for name in list(self._arrived):
            self._add(name)
        found = zip(others, gradients[len(gradients) - len(others) :], strict=True)
        return {name: gradient for name, gradient in found if gradient is not None}

    def _called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor | None:
        """Keep a call's input and wait for the gradient of its output."""
        if not torch.is_grad_enabled() or not self._recording:
            return None
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        names = self._owners[module]
        if len(tensors) != 1 or not isinstance(output, Tensor) or not tensors[0].dim() or not output.dim():
            raise NotBatchedError(f"'{next(iter(names.values()))}' is in a module of several inputs or outputs")
        (x,) = tensors
        if {len(x), len(output)} not in ({self._num_examples}, {1}):
            raise NotBatchedError(
                f"'{next(iter(names.values()))}' is in a module that does not get one row an example"
            )
        if len(output) < self._num_examples:  # one for all, such as position embeddings: tell their gradients apart
            x, output = (tensor.expand(self._num_examples, *tensor.shape[1:]) for tensor in (x, output))
        if not x.requires_grad:
            self._edges.append(get_gradient_edge(output))
        call = ModuleCall(module, names, x.detach(), args, kwargs)
        self._awaited.update(names.values())
        output.register_hook(self._receiver(call))
        return output

    def _receiver(self, call: ModuleCall) -> Callable[[Tensor], None]:
        def receive(output_gradient: Tensor) -> None:
            for name, contribution in call.contributions(output_gradient.detach()).items():
                self._arrived[name].append(contribution)
                self._awaited[name] -= 1
                if self._awaited[name] == 0:
                    self._add(name)

        return receive

    def _add(self, name: str) -> None:
        """Add a parameter's statistic: all its calls are summed before the example's gradient is squared."""
        parameter, total, arrived = self._parameters[name], self._sums[name], self._arrived.pop(name)
        how = self._num_examples, self._statistic, self._workspace
        if isinstance(parameter, DTensor):
            add_sharded_statistic(total, parameter, arrived, *how)
        else:
            add_statistic(total, arrived, *how)

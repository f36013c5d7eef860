"""Total absolute signal: how much passes through each connection on average, without any gradient.

    weight of a connection:   Omega_ij = |W_ij| * mean |input_j|
    bias:                     Omega_i  = mean |output_i|            (of the last layer: of its softmax)

The means are over examples and positions, padding left out. A layer that scales channels, such as a norm, has one
connection a channel, whose input is what it scales; the input of a table of embeddings is how often each row is looked
up. A weight that two layers share has the signals of both. Source: Kutalev & Lapina 2021 (arXiv 2109.10021),
section 2, after Kutalev 2020 (arXiv 2006.14331).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from transformers.pytorch_utils import Conv1D

from ..batching import Batch, logits_of
from ..calls import Path
from ..params import trainable_parameters

UNIT = "mean absolute signal"


@dataclass(frozen=True)
class _Connections:
    """The connections of one layer that one of its parameters weighs.

    Attributes:
        module: the layer.
        key: the parameter's name in it.
        name: the parameter's name in the model.
        dim: the parameter's dimension that is as large as its signals.
    """

    module: nn.Module
    key: str
    name: str
    dim: int


class AbsoluteSignals:
    """Sums of absolute signals over batches.

    Attributes:
        accumulators: by layer and parameter: the sum of each channel's signals over positions, and at the end the
            number of positions.
        decisions: none.
        paths: every parameter's is the closed form.
    """

    def __init__(self, model: nn.Module) -> None:
        """Begin with zeros.

        Args:
            model: unwrapped.

        Raises:
            ValueError: a parameter belongs to a layer whose connections are not known.
        """
        self._model, self._parameters = model, trainable_parameters(model)
        names = {p: name for name, p in self._parameters.items()}
        self._connections = {
            f"{path}.{key}".lstrip("."): _Connections(module, key, names[p], _signal_dim(module, key, names[p], p))
            for path, module in model.named_modules()
            for key, p in module.named_parameters(recurse=False)
            if p in names
        }
        self.accumulators: dict[str, Tensor] = {}
        for path, c in self._connections.items():
            p = self._parameters[c.name]
            self.accumulators[path] = p.new_zeros(
                p.shape[c.dim] + 1, dtype=torch.promote_types(p.dtype, torch.float32)
            )
        self.decisions: dict[str, Any] = {}
        self.paths = dict.fromkeys(self._parameters, Path.CLOSED_FORM)

    @torch.no_grad()
    def add(self, batch: Batch) -> None:
        """Add a batch: tensors with B examples along their first dimension."""
        outputs: dict[str, Tensor] = {}

        def listen(path: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            mask = batch.get("attention_mask")
            if self._connections[path].key != "bias":
                self._add_inputs(path, args, mask)
            else:
                for waiting, earlier in outputs.items():
                    self._add_channels(waiting, earlier, mask)
                outputs.clear()
                outputs[path] = output

        hooks = [c.module.register_forward_hook(partial(listen, path)) for path, c in self._connections.items()]
        try:
            logits = logits_of(self._model, batch)
        finally:
            for hook in hooks:
                hook.remove()
        for path, output in outputs.items():  # of the last bias
            if output.shape == logits.shape and torch.equal(output, logits):
                output = output.softmax(-1)
            self._add_channels(path, output, batch.get("attention_mask"))

    def importance(self, num_tokens: int) -> dict[str, Tensor]:
        """Return `|W| * mean signal`; the mean is over positions, so the number of label tokens does not matter."""
        importance: dict[str, Tensor] = {}
        for path, c in self._connections.items():
            weight, total = self._parameters[c.name].detach(), self.accumulators[path]
            mean = total[:-1] / total[-1].clamp(min=1)
            if c.key != "bias":
                mean = weight.abs() * mean.view([-1 if d == c.dim else 1 for d in range(weight.dim())])
            importance[c.name] = importance[c.name] + mean if c.name in importance else mean
        return importance

    def _add_inputs(self, path: str, args: tuple[Any, ...], mask: Tensor | None) -> None:
        """Add the signals that a layer's weight multiplies."""
        c = self._connections[path]
        if isinstance(c.module, nn.Embedding):
            tokens_N = args[0].flatten() if mask is None or mask.shape != args[0].shape else args[0][mask != 0]
            self._add(path, tokens_N.bincount(minlength=c.module.num_embeddings), len(tokens_N))
            return
        inputs = args[0]
        if not isinstance(c.module, nn.Linear | Conv1D | _ConvNd):  # what it scales: its derivative by the scales
            weight = self._parameters[c.name].detach()
            inputs = jvp(
                lambda w: functional_call(c.module, {"weight": w}, args), (weight,), (torch.ones_like(weight),)
            )[1]
        self._add_channels(path, inputs, mask)

    def _add_channels(self, path: str, signals: Tensor, mask: Tensor | None) -> None:
        """Add a layer's inputs or outputs."""
        signals_NC = _channels_last(self._connections[path].module, signals, mask)
        self._add(path, signals_NC.abs().sum(0, dtype=self.accumulators[path].dtype), len(signals_NC))

    def _add(self, path: str, sums: Tensor, count: int) -> None:
        self.accumulators[path][:-1] += sums
        self.accumulators[path][-1] += count


def _signal_dim(module: nn.Module, key: str, name: str, parameter: nn.Parameter) -> int:
    """Return which dimension of a parameter tells its connections' inputs apart."""
    if key == "bias" and parameter.dim() == 1:
        return 0
    if key == "weight" and (parameter.dim() == 1 or isinstance(module, nn.Embedding | Conv1D)):
        return 0
    if key == "weight" and (isinstance(module, nn.Linear) or (isinstance(module, _ConvNd) and module.groups == 1)):
        return 1
    raise ValueError(
        f"expected linear layers, convolutions, embeddings and norms for method 'signal', got '{name}' in "
        f"{type(module).__name__}; freeze it, or use 'fisher' or 'mas', which take any layer"
    )


def _channels_last(module: nn.Module, tensor: Tensor, mask: Tensor | None) -> Tensor:
    """Return a layer's input or output as [N, C], padding left out."""
    if isinstance(module, _ConvNd | _BatchNorm) and tensor.dim() > 2:
        return tensor.movedim(1, -1).flatten(0, -2)
    if mask is not None and tensor.dim() > 2 and tensor.shape[:2] == mask.shape:
        return tensor[mask != 0].reshape(-1, tensor.shape[-1])
    return tensor.reshape(-1, tensor.shape[-1])

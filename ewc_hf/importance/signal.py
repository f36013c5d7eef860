"""Total absolute signal: how much passes through each connection on average, without any gradient.

    weight of a connection:   Omega_ij = |W_ij| * mean |input_j|
    bias:                     Omega_i  = mean |output_i|            (of the last layer: of its softmax)

The means are over examples and positions, padding left out. A layer that scales channels, such as a norm, has one
connection a channel, whose input is what it scales; the input of a table of embeddings is how often each row is looked
up, times the scale that some tables apply. A weight that two layers share has the signals of both. Source: Kutalev &
Lapina 2021 (arXiv 2109.10021), section 2, after Kutalev 2020 (arXiv 2006.14331).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..data import Batch
from ..engines import all_reduce, are_sharded, num_processes, process_index
from ..per_example import GradientPath
from .objective import logits_of

_CHANNELS_SECOND = (_ConvNd, _NormBase, nn.GroupNorm)
"""Layers that take [B, C, ...] rather than [..., C]."""


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

    Args:
        model: unwrapped.
        parameters: its trainable parameters by name.

    Attributes:
        accumulators: by layer and parameter: the sum of each channel's signals over positions, and at the end the
            number of positions.
        decisions: none.
        paths: every parameter's is the closed form.

    Raises:
        ValueError: a parameter belongs to a layer whose connections are not known, it is sharded, or the model is an
            encoder-decoder, whose layers do not tell which padding is theirs.
    """

    def __init__(self, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        if isinstance(model, PreTrainedModel) and model.config.is_encoder_decoder:
            raise ValueError(
                f"expected a model other than an encoder-decoder for method 'signal', got {type(model).__name__}; "
                "use 'fisher' or 'mas'"
            )
        self._model, self._parameters = model, parameters
        if are_sharded(self._parameters):
            raise ValueError(
                "expected a model that each process holds whole for method 'signal', got a sharded one; use 'fisher' "
                "or 'mas'"
            )
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
        self.paths = dict.fromkeys(self._parameters, GradientPath.CLOSED_FORM)

    def add(self, batch: Batch) -> int:
        """Add a batch, of which each process does its share, and return how many of its label tokens count."""
        share = batch.share(process_index(), num_processes(), even=False)
        for piece in share.alone() if share.lengths else [share] if len(share) else []:
            self._add_share(piece)
        return batch.num_label_tokens

    @torch.no_grad()
    def _add_share(self, batch: Batch) -> None:
        last: tuple[str, Tensor, tuple[Tensor, int]] | None = None
        listening = True

        def listen(
            path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
        ) -> None:
            nonlocal last, listening
            if not listening:
                return
            if self._connections[path].key != "bias":
                listening = False  # the layer is run again, alone
                self._add(path, *self._inputs(path, args, kwargs, batch))
                listening = True
                return
            if last is not None:
                self._add(last[0], *last[2])
            last = path, output, self._channels(path, output, batch)  # at once: what follows may change it in place

        hooks = [
            c.module.register_forward_hook(partial(listen, path), with_kwargs=True)
            for path, c in self._connections.items()
        ]
        try:
            logits = logits_of(self._model, batch)
        finally:
            for hook in hooks:
                hook.remove()
        if last is not None:
            path, output, signals = last
            if output.shape == logits.shape and torch.equal(output.to(logits.dtype), logits):
                signals = self._channels(path, logits.softmax(-1, dtype=self.accumulators[path].dtype), batch)
            self._add(path, *signals)

    def gather(self) -> None:
        """Add up what the processes have summed."""
        if num_processes() > 1:
            for total in self.accumulators.values():
                all_reduce(total)

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

    def _inputs(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any], batch: Batch) -> tuple[Tensor, int]:
        """Return the sums of the signals that a layer's weight multiplies, and over how many positions."""
        c = self._connections[path]

        def run(weight: Tensor) -> Tensor:
            return functional_call(c.module, {"weight": weight}, args, kwargs)

        weight = self._parameters[c.name].detach()
        if isinstance(c.module, nn.Embedding):  # some compute the rows to look up: read them from a table of numbers
            numbers_R1 = torch.arange(len(weight), dtype=self.accumulators[path].dtype, device=weight.device)[:, None]
            scales, rows = (_positions(run(table), batch) for table in (torch.ones_like(numbers_R1), numbers_R1))
            looked_up = (rows / scales).round().long().flatten()
            return looked_up.bincount(scales.abs().flatten(), minlength=len(weight)), len(scales)
        if isinstance(c.module, nn.Linear | Conv1D | _ConvNd):
            return self._channels(path, next(iter((*args, *kwargs.values()))), batch)
        scaled = run(torch.ones_like(weight)) - run(torch.zeros_like(weight))
        return self._channels(path, scaled, batch)

    def _channels(self, path: str, signals: Tensor, batch: Batch) -> tuple[Tensor, int]:
        """Return the sums of a layer's absolute inputs or outputs, and over how many positions."""
        if isinstance(self._connections[path].module, _CHANNELS_SECOND) and signals.dim() > 2:
            signals = signals.movedim(1, -1)
        signals_NC = _positions(signals, batch)
        return signals_NC.abs().sum(0, dtype=self.accumulators[path].dtype), len(signals_NC)

    def _add(self, path: str, sums: Tensor, count: int) -> None:
        self.accumulators[path][:-1] += sums
        self.accumulators[path][-1] += count


def _signal_dim(module: nn.Module, key: str, name: str, parameter: nn.Parameter) -> int:
    """Return which dimension of a parameter tells its connections' inputs apart."""
    if key == "bias" and parameter.dim() == 1:
        return 0
    if key == "weight" and isinstance(module, nn.Embedding | Conv1D):
        return 0
    if key == "weight" and parameter.dim() == 1 and not isinstance(module, nn.PReLU):
        return 0
    if key == "weight" and isinstance(module, nn.Linear):
        return 1
    if key == "weight" and isinstance(module, _ConvNd) and module.groups == 1:
        return 0 if module.transposed else 1
    raise ValueError(
        f"expected linear layers, convolutions, embeddings and norms for method 'signal', got '{name}' in "
        f"{type(module).__name__}; freeze it, or use 'fisher' or 'mas', which take any layer"
    )


def _positions(tensor: Tensor, batch: Batch) -> Tensor:
    """Return a layer's input or output [B, ..., C] as [N, C], padding left out.

    Raises:
        ValueError: the attention mask leaves out some, and no dimension, or more than one, is as long as it.
    """
    mask_BT = batch.inputs.get("attention_mask")
    if len(tensor) == 1:  # one for all examples, such as position embeddings
        tensor = tensor.expand(len(batch), *tensor.shape[1:])
    if mask_BT is not None and tensor.dim() > 2 and not mask_BT.all():
        of_positions = [dim for dim in range(1, tensor.dim() - 1) if tensor.shape[dim] == mask_BT.shape[-1]]
        if len(of_positions) != 1 or mask_BT.dim() != 2:
            raise ValueError(
                f"expected layers over {tuple(mask_BT.shape)} tokens for method 'signal', some of them padding, got "
                f"one over {tuple(tensor.shape[:-1])} positions; leave padding out of the examples, or use 'fisher'"
            )
        tensor = tensor.movedim(of_positions[0], 1)[mask_BT != 0]
    return tensor.reshape(-1, tensor.shape[-1])

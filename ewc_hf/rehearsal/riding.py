"""Rows that ride in a batch: one forward pass for the task's rows and these, of which the loss sees the task's only.

Shapes: B rows of the task, R rehearsal rows, T positions, V vocabulary entries.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..data import IGNORED

_PADDING = {"input_ids": 0, "attention_mask": 0, "labels": IGNORED}
"""The inputs that rows can be added to, and what stands right of a shorter row."""


class RidingRows:
    """Adds rows to the batch of a model's next forward pass, and takes their logits out of its result.

    A causal model's positions do not see what is on their right, so rows of different lengths are padded there, with a
    mask only where the batch has one. The rows' labels are -100.

    Args:
        model: as it is called: wrapped, compiled, sharded.
        ids_RT: token ids, padded on the right.
        lengths_R: tokens of each row.
    """

    def __init__(self, model: nn.Module, ids_RT: Tensor, lengths_R: Tensor) -> None:
        self._model, self._ids_RT, self._lengths_R = model, ids_RT, lengths_R
        self._shape: tuple[int, int] | None = None
        self._logits: Tensor | None = None
        self._rode = False

    def __enter__(self) -> RidingRows:
        """Begin to watch the model."""
        self._hooks = [
            self._model.register_forward_pre_hook(self._add, with_kwargs=True),
            self._model.register_forward_hook(self._take, with_kwargs=True),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Let the model alone again."""
        for hook in self._hooks:
            hook.remove()

    def take_logits(self) -> Tensor:
        """Return the rows' logits, [R, T, V], once: they are not held through the backward pass.

        Raises:
            ValueError: the model was not called with gradients.
        """
        logits, self._logits = self._logits, None
        if logits is None:
            raise ValueError(
                "expected a forward pass of the model with gradients in each training step, for rehearsal rows to "
                "ride in, got none; train without `rehearsal`"
            )
        return logits

    def _add(self, _: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Put the rows below those of the task."""
        if self._rode or not torch.is_grad_enabled():
            return None
        of_rows = [key for key, value in inputs.items() if isinstance(value, Tensor) and value.dim() > 0]
        shapes = {tuple(inputs[key].shape) for key in of_rows}
        if args or "input_ids" not in inputs or not set(of_rows) <= _PADDING.keys() or len(shapes) > 1:
            got = [f"{key} of the shape {tuple(inputs[key].shape)}" for key in of_rows]
            raise ValueError(
                f"expected batches of {', '.join(_PADDING)}, all of one shape, for rehearsal rows to ride in, got "
                f"{', '.join(got) or 'no such columns'}{' and positional arguments' if args else ''}; leave other "
                "columns out (packed sequences with position_ids cannot take rows), or train without `rehearsal`"
            )
        batch, length = inputs["input_ids"].shape
        self._shape = batch, length
        longest = max(length, self._ids_RT.shape[1])
        real_RT = torch.arange(longest, device=self._ids_RT.device) < self._lengths_R[:, None]
        rows = {
            "input_ids": pad(self._ids_RT, (0, longest - self._ids_RT.shape[1])),
            "attention_mask": real_RT,
            "labels": torch.full_like(real_RT, IGNORED, dtype=torch.long),
        }
        for key in of_rows:
            padded = pad(inputs[key], (0, longest - length), value=_PADDING[key])
            inputs[key] = torch.cat([padded, rows[key].to(padded)])
        return args, inputs

    def _take(self, _: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any], outputs: Any) -> Any:
        """Keep the rows' logits, and leave those of the task in the result."""
        if self._shape is None or self._rode:
            return outputs
        batch, length = self._shape
        logits = outputs.get("logits") if isinstance(outputs, dict) else None
        expected = (batch + len(self._ids_RT), max(length, self._ids_RT.shape[1]))
        if logits is None or logits.shape[:2] != expected:
            got = "none" if logits is None else f"the shape {tuple(logits.shape)}"
            raise ValueError(
                f"expected logits at each position of a batch, {expected}, to hold at the rehearsal rows, got {got} "
                f"from {type(outputs).__name__}; switch off kernels that compute the loss without logits (such as "
                "`use_liger_kernel`), or train without `rehearsal`"
            )
        self._logits, self._rode = logits[batch:, : self._ids_RT.shape[1]], True
        outputs["logits"] = logits[:batch, :length]
        return outputs

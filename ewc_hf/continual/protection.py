"""What holds a stack of networks near what they learned before, by the estimators and the penalty of this package.

Shapes: S networks; every tensor of a stack's consolidation is [S, ...].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ..consolidation import Consolidation
from ..data import Example
from ..engines import LocalParameters
from ..importance import Method, WeightPath, estimate_importance
from ..penalty import CoupledPenalty, Diagonal
from .images import Images
from .rows import Form, Row
from .stack import Stack
from .tasks import Task

_DAMPING = 0.1
"""The xi of Synaptic Intelligence, as in the paper."""
_BATCH = 250
"""Pictures a batch where importance is estimated; it changes the speed only."""


class Protection:
    """The penalty of a stack, anew after each task.

    A penalty depends on lambda and Omega by their product only, so each network has its own lambda: its importance is
    multiplied by it, and the penalty's is 1.

    Args:
        row: whose importance, and how the penalty acts; None for no penalty.
        lambdas: of each network.
        num_examples: last pictures of a task's training set on which importance is estimated; None for all.

    Attributes:
        consolidation: what the networks have to remember of all tasks so far, of each its own; None before the first
            one was learned.
    """

    def __init__(self, row: Row | None, lambdas: Sequence[float], num_examples: int | None = 5000) -> None:
        self.consolidation: Consolidation | None = None
        self._row, self._lambdas = row, torch.tensor(lambdas, dtype=torch.float64)
        self._num_examples = num_examples
        self._accrued: dict[str, Tensor] = {}

    @contextmanager
    def while_learning(self, stack: Stack, optimizer: torch.optim.Optimizer) -> Iterator[_Steps]:
        """Hold the networks while a task is learned.

        Args:
            stack: the networks.
            optimizer: of their parameters.

        Yields:
            What the training loop calls in each step.
        """
        parameters = LocalParameters(stack.network, optimizer)
        penalty, path, hooks = None, None, []
        if self._row is not None and self.consolidation is not None:
            penalty = _penalty(self._row.form, self.consolidation, self._lambdas, parameters)
            hooks.append(optimizer.register_step_post_hook(penalty.pull))
        if self._row is not None and self._row.method is Method.SYNAPTIC:
            path = WeightPath(parameters)
            hooks.append(path.hook)
        try:
            yield _Steps(penalty, path)
        finally:
            for hook in hooks:
                hook.remove()
        if path is not None:
            self._accrued = path.importance(_DAMPING)

    def remember(self, stack: Stack, task: Task) -> None:
        """Add what matters to the task just learned to what mattered before; the anchor is where the networks are.

        Args:
            stack: the networks.
            task: that they learned last.

        Raises:
            ValueError: a network has diverged.
        """
        if self._row is None:
            return
        self._require_finite(stack)
        if self._row.method is Method.SYNAPTIC:
            new = _consolidation(stack, self._accrued, self._row.method, self._row.method.unit, 0)
        else:
            last = task.train.last(self._num_examples)
            new = _estimated(stack, Images(task.seen(last.pixels), last.labels), self._row.method)
        self.consolidation = new if self.consolidation is None else self.consolidation.merge(new)

    def repeated(self, row: Row, lambdas: Sequence[float]) -> Protection:
        """Return the protection of copies of the only network of a stack, by the same importance.

        Args:
            row: how the penalty acts.
            lambdas: of each copy.
        """
        protection, known = Protection(row, lambdas, self._num_examples), self.consolidation
        if known is not None:
            importance, anchor = (
                {name: tensor.repeat_interleave(len(lambdas), 0) for name, tensor in tensors.items()}
                for tensors in (known.importance, known.anchor)
            )
            protection.consolidation = dataclasses.replace(known, importance=importance, anchor=anchor)
        return protection

    def _require_finite(self, stack: Stack) -> None:
        finite = torch.stack([p.isfinite().flatten(1).all(1) for p in stack.network.parameters()]).all(0)
        if not finite.all():
            lambdas = [f"{number:g}" for number in self._lambdas[~finite.cpu()].tolist()]
            raise ValueError(
                f"expected finite weights after each task, got others at lambda {', '.join(lambdas)} of "
                f"'{self._row.name if self._row else ''}'; leave these lambdas out"
            )


@dataclasses.dataclass(frozen=True)
class _Steps:
    """What the penalty and Synaptic Intelligence do in each step."""

    penalty: CoupledPenalty | None
    path: WeightPath | None

    def before(self) -> None:
        """Add the penalty's gradient, after the backward pass."""
        if self.penalty is not None:
            self.penalty.add_gradient()

    def after(self) -> None:
        """Count what the step did for the loss."""
        if self.path is not None:
            self.path.after_step()


def _penalty(form: Form, consolidation: Consolidation, lambdas: Tensor, parameters: LocalParameters) -> CoupledPenalty:
    importance = {
        name: omega * lambdas.to(omega).view(-1, *[1] * (omega.dim() - 1))
        for name, omega in consolidation.importance.items()
    }
    term = Diagonal(dataclasses.replace(consolidation, importance=importance), parameters)
    groups = parameters.optimizer.param_groups
    alphas = [group["lr"] if form is Form.STABILIZED else 0.0 for group in groups]
    return CoupledPenalty([term], parameters, form.coupling, 1.0, alphas)


def _estimated(stack: Stack, images: Images, method: Method) -> Consolidation:
    """Estimate each network's importance by itself."""
    examples = [{"number": number} for number in range(len(images))]

    def collate(chosen: list[Example]) -> dict[str, Tensor]:
        numbers = [example["number"] for example in chosen]
        return {"images": images.pixels[numbers], "labels": images.labels[numbers]}

    each = [
        estimate_importance(
            stack.member(index),
            examples,
            method,
            num_examples=len(examples),
            batch_size=_BATCH,
            data_collator=collate,
            progress=False,
        )
        for index in range(len(stack))
    ]
    importance = {name: torch.stack([one.importance[name] for one in each]) for name in each[0].importance}
    return _consolidation(stack, importance, method, each[0].metadata["unit"], len(images))


def _consolidation(
    stack: Stack, importance: dict[str, Tensor], method: Method, unit: str, num_examples: int
) -> Consolidation:
    anchor = {name: parameter.detach().clone() for name, parameter in stack.network.named_parameters()}
    return Consolidation.create(
        importance, anchor, method=method.value, unit=unit, num_examples=num_examples, num_tokens=num_examples
    )

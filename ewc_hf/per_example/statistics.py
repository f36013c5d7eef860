"""Per-example gradient statistics of any model: batched where that was found exact, else one backward an example."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.utils import logging

from ..data import IGNORED, Batch
from ..engines import (
    Sharding,
    all_reduce,
    are_sharded,
    local_part,
    num_processes,
    process_index,
    replicas_of,
    sharded_like,
    united,
)
from .contributions import Statistic, Workspace
from .errors import is_out_of_memory, round_off_of
from .layers import GradientPath, path_of
from .one_by_one import Objective, add_one_by_one
from .one_pass import NotBatchedError, OnePass
from .padding import padding_is_harmless

_TOKENS_AT_A_TIME_ON_CPU = 1024

logger = logging.get_logger(__name__)


class GradientStatistics:
    r"""Sums over examples of the squared or absolute gradient of each example.

        sums_i = \sum_b f(d objective_b / d w_i),      f(g) = g^2 or |g|

    The function is applied to each EXAMPLE's gradient. Squaring the gradient of a batch's mean instead shrinks a
    noise-dominated Fisher information by the batch size.

    The first batch decides on the path. Two of its examples are done in both ways, in one batched backward pass and in
    one backward pass each. Where the statistics of a parameter differ, or a module does not show which part of its
    input belongs to which example, every example gets a backward pass of its own: an architecture that nobody foresaw
    is slower, not wrong. What no check of a batch can see is a weight of a layer that code outside the layer uses too,
    but only in later batches. The first batch with padding decides on that too: where it changes an example's
    objective, examples go one by one, without it.

    Args:
        model: unwrapped, in the mode (train or eval) to differentiate in; `p.grad` stays as it is.
        parameters: its trainable parameters by name.
        objective: maps model and batch to one scalar per example.
        statistic: `f`.

    Attributes:
        accumulators: the sums by parameter name: float64 for float64 parameters, else float32.
        paths: how each parameter's statistic is computed, from the first batch on.

    Raises:
        ValueError: some parameters are sharded and some are not, or ZeRO-3 holds them.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        objective: Objective,
        statistic: Statistic,
    ) -> None:
        self._model, self._objective, self._statistic = model, objective, statistic
        self._parameters = parameters
        self._sharded = are_sharded(parameters)
        self._unverified: set[str] = set()
        self._padding_is_harmless: bool | None = None
        self._workspace = Workspace()
        self.accumulators = {
            name: torch.zeros_like(local_part(p), dtype=torch.promote_types(p.dtype, torch.float32))
            for name, p in parameters.items()
        }
        self.paths: dict[str, GradientPath] = {}

    def add(self, batch: Batch) -> int:
        """Add a batch, and return how many of its label tokens count.

        All processes call this with the same batch, and each does its share of the examples.
        """
        num_label_tokens = batch.num_label_tokens
        if num_label_tokens == 0:  # it adds nothing, and no path could be chosen by it
            return 0
        if batch.lengths and self._padding_is_harmless is None:
            self._padding_is_harmless = padding_is_harmless(self._model, batch, self._objective)
            if self._padding_is_harmless is False:
                self._leave_padding_out()
        if not self.paths:
            self._choose_paths(batch)
        if self._sharded and GradientPath.EXAMPLE in self.paths.values():
            self._add_one_by_one(batch, self._parameters)
        else:
            share = batch.share(process_index(), num_processes(), even=self._sharded)
            for piece in pieces_of(share):
                self._add_piece(piece)
        return num_label_tokens

    def _add_piece(self, batch: Batch) -> None:
        if GradientPath.EXAMPLE not in self.paths.values():
            try:
                self._add_in_one_pass(batch)
                return
            except NotBatchedError as reason:  # raised in the forward pass: nothing was added
                if self._sharded:
                    raise ValueError(
                        f"expected layers that are called as in the first batch, got another call: {reason}; estimate "
                        "the importance of this model in one process, or in several that hold it whole"
                    ) from reason
                self._take_examples_one_by_one(f"the batched pass failed ({reason})")
        self._add_one_by_one(batch, self._parameters)

    def gather(self) -> None:
        """Add up what the processes have summed, but where they have summed the same."""
        if self._sharded and GradientPath.EXAMPLE in self.paths.values():
            return
        for name, total in self.accumulators.items():
            for group in replicas_of(self._parameters[name]):
                all_reduce(total, group)

    def importance(self, num_tokens: int) -> dict[str, Tensor]:
        """Return the sums divided by the number of label tokens, without a copy: nothing can be added after."""
        return {
            name: sharded_like(self._parameters[name], total.div_(num_tokens))
            for name, total in self.accumulators.items()
        }

    @property
    def decisions(self) -> dict[str, Any]:
        """What the batches so far have decided: the paths, the parameters that none of them used, and on padding."""
        return {
            "paths": self.paths,
            "unverified": sorted(self._unverified),
            "padding_is_harmless": self._padding_is_harmless,
        }

    @decisions.setter
    def decisions(self, decisions: dict[str, Any]) -> None:
        self.paths = {name: GradientPath(path) for name, path in decisions["paths"].items()}
        self._unverified = set(decisions["unverified"])
        self._padding_is_harmless = decisions["padding_is_harmless"]

    def _add_in_one_pass(self, batch: Batch) -> None:
        sums, statistic = self.accumulators, self._statistic
        with OnePass(self._model, self._parameters, sums, len(batch), statistic, self._workspace) as one_pass:
            try:
                values_B = self._objective(self._model, batch)
            except NotBatchedError:
                raise
            except Exception as error:  # an error of the model's own comes again, one example at a time
                if is_out_of_memory(error):
                    raise
                raise NotBatchedError(f"{type(error).__name__}: {error}") from error
            total_gradients = one_pass.backward(values_B, self._unverified)
        if late := [name for name, gradient in total_gradients.items() if gradient.any()]:
            for name in late:
                self.accumulators[name].zero_()
            self._add_one_by_one(batch, late)
            self._take_examples_one_by_one(f"'{late[0]}' was not in use in the first batch")

    def _add_one_by_one(self, batch: Batch, names: Iterable[str]) -> None:
        parameters = {name: self._parameters[name] for name in names}
        add_one_by_one(self.accumulators, parameters, self._model, batch, self._objective, self._statistic)

    def _choose_paths(self, batch: Batch) -> None:
        """Compare both ways on two examples, in the accumulators themselves, which are zero before and after."""
        counts = (batch.labels.reshape(len(batch), -1) != IGNORED).sum(1)
        if (counts > 0).sum() < 2:  # a gradient of zero beside another one would hide a mix-up of the two
            expected_so = len(batch) == 1
            self._take_examples_one_by_one(None if expected_so else "the first batch has one example with labels")
            return
        pair = batch.rows(counts.topk(2).indices)
        self._add_one_by_one(pair, self._parameters)
        expected = self._pop_marginals()
        used = united({name for name, marginals in expected.items() if marginals.any()}, self._sharded)
        self._unverified = expected.keys() - used
        try:
            self._add_in_one_pass(pair)
        except Exception as error:  # the other way succeeded, so whatever else this is, it is no reason to stop
            if is_out_of_memory(error):
                raise
            self._pop_marginals()
            self._take_examples_one_by_one(f"the batched pass failed ({error})")
            return
        got = self._pop_marginals()
        if self.paths:  # a parameter took part that no example alone uses
            return
        if self._sharded and self._unverified:  # whether a later batch uses it could not be seen
            self._take_examples_one_by_one(f"'{min(self._unverified)}' was not in use in the first batch")
            return
        for name, marginals in expected.items():
            if isinstance(parameter := self._parameters[name], DTensor):  # every process has added the same two
                times = Sharding.of(parameter).size
                marginals *= times**0.5 if self._statistic is Statistic.SQUARE else times
        epsilon = round_off_of(self._model)
        round_off = 4 * epsilon * max(marginals.max().item() for marginals in expected.values())
        different: Set[str] = set()
        for name, marginals in expected.items():
            missed = marginals.any() and not got[name].any()
            if missed or not (got[name] - marginals).abs().max() <= 3 * epsilon**0.5 * marginals.max() + round_off:
                different |= {name}
        if different := united(different, self._sharded):
            self._take_examples_one_by_one(f"'{min(different)}' differs in the batched pass")
            return
        owners = {p: module for module in self._model.modules() for p in module.parameters(recurse=False)}
        self.paths = {name: path_of(owners[p]) for name, p in self._parameters.items()}

    def _leave_padding_out(self) -> None:
        if self._sharded and self.paths and GradientPath.EXAMPLE not in self.paths.values():
            raise ValueError(
                "expected examples of one length, as in the first batch, since padding changes what this model "
                "computes, got several; estimate the importance in one process, or in several that hold it whole"
            )
        self._take_examples_one_by_one("padding changes what the model computes")

    def _take_examples_one_by_one(self, reason: str | None) -> None:
        if reason is not None:
            logger.warning(f"Each example gets a backward pass of its own, which is exact and slower: {reason}")
        self.paths = dict.fromkeys(self._parameters, GradientPath.EXAMPLE)

    def _pop_marginals(self) -> dict[str, Tensor]:
        """Return the sums over rows and over columns of each accumulator, in units of a gradient, and zero it."""
        taken = {}
        for name, total in self.accumulators.items():
            matrix = total.reshape(len(total), math.prod(total.shape[1:])) if total.dim() else total.reshape(1, 1)
            marginals = torch.cat([matrix.sum(0), matrix.sum(1)])
            taken[name] = marginals.sqrt() if self._statistic is Statistic.SQUARE else marginals
            total.zero_()
        return taken


def pieces_of(batch: Batch) -> Iterator[Batch]:
    """Split a batch on the CPU, where a pass over many tokens leaves the caches."""
    size = max(1, len(batch))
    if batch.labels.device.type == "cpu" and len(batch):
        columns = [batch.labels, *(value for value in batch.inputs.values() if not value.is_floating_point())]
        size = max(1, _TOKENS_AT_A_TIME_ON_CPU // max(column[0].numel() for column in columns))
    return batch.split(size)

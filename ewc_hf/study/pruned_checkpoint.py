"""A checkpoint whose least important weights are zero, with what that costs in its model card."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel

from ..consolidation import Consolidation
from ..engines import place, require_one_process
from ..evaluation import PerplexityResult, evaluate_perplexity
from ..importance import PruningScope, estimate_importance, prune_weights, require_sparsity, sparsity_of
from ..storage import load_causal_lm, load_tokenizer, write_json
from .output_folder import publish, require_room
from .pruning_card import pruning_card

MAGNITUDE = "magnitude"
ESTIMATED = ("signal", "fisher", "mas")
"""Criteria that text is read for."""


@dataclass(frozen=True)
class PrunedCheckpoint:
    """How a checkpoint was pruned, and what that cost.

    Attributes:
        model: the checkpoint.
        criterion: by which the weights were chosen.
        scope: among which.
        sparsity: the share of the weights of linear layers that are zero.
        num_examples: blocks of text that the criterion was estimated on; None where it was not.
        seed: of their sample.
        before: perplexity of the model as it was; None where no text was held out.
        after: of the pruned one.
    """

    model: str
    criterion: str
    scope: PruningScope
    sparsity: float
    num_examples: int | None
    seed: int
    before: PerplexityResult | None
    after: PerplexityResult | None


def prune_checkpoint(
    model: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    sparsity: float,
    criterion: str = MAGNITUDE,
    examples: Dataset | None = None,
    held_out: Sequence[str] = (),
    scope: PruningScope | str = PruningScope.NETWORK,
    num_examples: int = 512,
    seed: int = 0,
    command: str | None = None,
    trust_remote_code: bool = False,
) -> PrunedCheckpoint:
    """Write a pruned causal language model, which loads as any other, its tokenizer, `pruning.json` and a model card.

    Args:
        model: a folder or a Hub id.
        output_dir: may not hold a model already.
        sparsity: the share of the weights of linear layers that become zero, from 0 to 1.
        criterion: "magnitude"; "signal", "fisher" or "mas", estimated on `examples`; or the folder or Hub id of a
            stored consolidation of this model, such as one of Synaptic Intelligence.
        examples: blocks of text like the pretraining text, for a criterion that is estimated.
        held_out: documents on which perplexity is measured before and after; none to leave that out.
        scope: "network" or "layer": among which weights the least important ones are taken.
        num_examples: blocks that the criterion is estimated on, or all where there are fewer.
        seed: of their sample.
        command: how the model card says that the model was made; by default this call.
        trust_remote_code: run the code that the model brings along.

    Raises:
        ValueError: an output folder that holds a model, more than one process, a criterion without examples or
            examples without use, a consolidation of other weights; and as `prune_weights` and `evaluate_perplexity`.
            Then nothing is written.
    """
    require_one_process()
    require_sparsity(sparsity)
    scope, is_estimated = PruningScope(scope), criterion in ESTIMATED
    if is_estimated != (examples is not None):
        got, cure = ("none", "name some") if is_estimated else ("some", "leave it out")
        raise ValueError(
            f"expected text for the criteria {', '.join(ESTIMATED)} and no other, got {got} for '{criterion}'; {cure}"
        )
    output = Path(output_dir).resolve()
    require_room(output, for_a_model=True)
    stored = None if is_estimated or criterion == MAGNITUDE else Consolidation.from_pretrained(criterion)
    tokenizer = load_tokenizer(model, trust_remote_code)
    pruned = load_causal_lm(model, "auto", trust_remote_code)
    dtypes = {name: parameter.dtype for name, parameter in pruned.named_parameters()}
    pruned = place(pruned.float())
    importance, examples_read = None if stored is None else _of_this_model(stored, pruned), None
    if is_estimated:
        estimated = estimate_importance(pruned, examples, criterion, num_examples=num_examples, seed=seed)
        importance, examples_read = estimated.importance, estimated.metadata["num_examples"]
    before = evaluate_perplexity(pruned, tokenizer, held_out) if held_out else None
    prune_weights(pruned, sparsity, importance, scope)
    after = evaluate_perplexity(pruned, tokenizer, held_out) if held_out else None
    result = PrunedCheckpoint(str(model), criterion, scope, sparsity_of(pruned), examples_read, seed, before, after)
    for name, parameter in pruned.named_parameters():
        parameter.data = parameter.data.to(dtypes[name])
    how = command or f'prune_checkpoint("{model}", ..., {sparsity}, "{criterion}")'
    _write(pruned, tokenizer, result, pruning_card(output.name, result, how), output)
    return result


def _of_this_model(consolidation: Consolidation, model: PreTrainedModel) -> Mapping[str, Tensor]:
    """Return the importance.

    Raises:
        ValueError: it is that of other weights.
    """
    weights = dict(model.named_parameters())
    for name, anchor in consolidation.anchor.items():
        weight = weights.get(name)
        if weight is not None and not torch.equal(weight.detach().cpu(), anchor.to(weight.dtype).cpu()):
            raise ValueError(
                f"expected an importance of this model's weights, got one of another '{name}'; estimate it on these"
            )
    return consolidation.importance


def _write(model: PreTrainedModel, tokenizer: Any, result: PrunedCheckpoint, card: str, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        folder = Path(temporary)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        write_json(folder / "pruning.json", asdict(result))
        publish(folder, output)

"""A checkpoint whose least important weights are zero, with what that costs in its model card."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ..consolidation import Consolidation
from ..engines import launched, place
from ..evaluation import PerplexityResult, evaluate_perplexity
from ..importance import PruningScope, estimate_importance, prune_weights
from ..storage import write_json
from .output_folder import publish, require_room
from .pruning_card import pruning_card

MAGNITUDE = "magnitude"
_ESTIMATED = ("signal", "fisher", "mas")


@dataclass(frozen=True)
class PrunedCheckpoint:
    """What pruning a checkpoint cost.

    Attributes:
        sparsity: the share of the weights of linear layers that are zero.
        before: perplexity of the model as it was; None where no text was held out.
        after: of the pruned one.
    """

    sparsity: float
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
) -> PrunedCheckpoint:
    """Write a pruned causal language model, which loads as any other, its tokenizer, `pruning.json` and a model card.

    Args:
        model: a folder or a Hub id.
        output_dir: may not hold a model already.
        sparsity: the share of the weights of linear layers that become zero, from 0 to 1.
        criterion: "magnitude"; "signal", "fisher" or "mas", estimated on `examples`; or the folder or Hub id of a
            stored consolidation, such as one of Synaptic Intelligence.
        examples: blocks of text like the pretraining text, for the criterion.
        held_out: documents on which perplexity is measured before and after; none to leave that out.
        scope: "network" or "layer": among which weights the least important ones are taken.
        num_examples: blocks that the criterion is estimated on.
        seed: of their sample.
        command: how the model card says that the model was made; by default this call.

    Raises:
        ValueError: an output folder that holds a model, more than one process, a criterion without examples; and as
            `prune_weights` and `evaluate_perplexity`. Then nothing is written.
    """
    if launched().num_processes > 1:
        raise ValueError(f"expected one process, got {launched().num_processes}; launch with --num_processes 1")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"expected a sparsity from 0 to 1, got {sparsity}; 0.8 sets 80% of the weights to zero")
    if criterion in _ESTIMATED and examples is None:
        raise ValueError(
            f"expected text for the criterion '{criterion}', got none; name text like the pretraining text"
        )
    output = Path(output_dir).resolve()
    require_room(output, for_a_model=True)
    tokenizer = AutoTokenizer.from_pretrained(model)
    whole = place(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32))
    importance = _importance(whole, criterion, examples, num_examples, seed)
    before = evaluate_perplexity(whole, tokenizer, held_out) if held_out else None
    prune_weights(whole, sparsity, importance, scope)
    after = evaluate_perplexity(whole, tokenizer, held_out) if held_out else None
    result = PrunedCheckpoint(sparsity, before, after)
    measured = [] if before is None or after is None else [before, after]
    how = command or f'prune_checkpoint("{model}", ..., {sparsity}, "{criterion}")'
    among = "the network" if PruningScope(scope) is PruningScope.NETWORK else "each layer"
    card = pruning_card(output.name, str(model), criterion, among, sparsity, measured, how)
    _write(whole, tokenizer, card, result, output)
    return result


def _importance(
    model: PreTrainedModel, criterion: str, examples: Dataset | None, num_examples: int, seed: int
) -> Mapping[str, Tensor] | None:
    if criterion == MAGNITUDE:
        return None
    if criterion in _ESTIMATED:
        return estimate_importance(model, examples, criterion, num_examples=num_examples, seed=seed).importance
    return Consolidation.from_pretrained(criterion).importance


def _write(
    model: PreTrainedModel, tokenizer: AutoTokenizer, card: str, result: PrunedCheckpoint, output: Path
) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        folder = Path(temporary)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        write_json(folder / "pruning.json", asdict(result))
        publish(folder, output)

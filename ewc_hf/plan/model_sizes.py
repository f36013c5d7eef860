"""How many parameters a model has, and where, from its configuration alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from ..engines import trainable_parameters
from ..storage import hub_arguments


@dataclass(frozen=True)
class ModelSizes:
    """Numbers of trainable parameters, tied ones once.

    Attributes:
        total: all of them.
        cast: those that autocast copies to bfloat16: all but embeddings that are only looked up. Norms, which it does
            not copy, are counted too; they are few.
        embedding: the input embedding where it is not tied to the head, else 0.
        blocks: each of the blocks that the model repeats, which an engine does not split.
        stored_in_bfloat16: whether the configuration says that the checkpoint is in bfloat16.
    """

    total: int
    cast: int
    embedding: int
    blocks: tuple[int, ...]
    stored_in_bfloat16: bool

    @property
    def rest(self) -> int:
        """What is neither in a block nor in an untied embedding: the head, tied or not, above all."""
        return self.total - self.embedding - sum(self.blocks)


def read_config(model: str) -> Any:
    """Return the configuration of a model.

    Args:
        model: a folder with a config.json, or a Hub id with @revision/folder.

    Raises:
        ValueError: there is none, or transformers does not know its kind of model.
    """
    try:
        return AutoConfig.from_pretrained(**hub_arguments(model), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"expected a folder with a model's config.json or a Hub id, got '{model}' ({_first_line(error)}); "
            "check the path, the name and the network"
        ) from error


def model_sizes(config: Any) -> ModelSizes:
    """Count the parameters of the causal language model that a configuration describes; none is allocated.

    Raises:
        ValueError: it describes another kind of model, or one that cannot be built.
    """
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise ValueError(
            f"expected the configuration of a causal language model, got a {type(config).__name__} "
            f"({_first_line(error)}); choose another model or correct its config.json"
        ) from error
    parameters = trainable_parameters(model).values()
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    looked_up = {layer.weight for layer in model.modules() if isinstance(layer, nn.Embedding)} - {head}
    # Modules come before those inside them, so that a block within a block keeps its parameters.
    repeated = (layer for layer in model.modules() if type(layer).__name__ in (model._no_split_modules or ()))
    block_of = {p: layer for layer in repeated for p in layer.parameters()}
    blocks: Counter[nn.Module] = Counter()
    for p, block in block_of.items():
        blocks[block] += p.numel()
    return ModelSizes(
        total=sum(p.numel() for p in parameters),
        cast=sum(p.numel() for p in parameters if p not in looked_up),
        embedding=0 if embedding is head or embedding in block_of else embedding.numel(),
        blocks=tuple(blocks.values()),
        stored_in_bfloat16=config.dtype == torch.bfloat16,
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

"""Do rehearsal rows suit a model, its tokenizer, and the way it is trained?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc
import torch
from transformers import PreTrainedModel

from ..data import predicts_next_token, require_known_tokens, require_within_context, tokenizer_of
from ..engines import require_engine, unwrap
from .columns import lengths_of
from .rows import Rehearsal, require_tokenizer

if TYPE_CHECKING:
    from transformers import Trainer


def require_suitable(trainer: Trainer, rehearsal: Rehearsal) -> None:
    """Check all that can be checked before training.

    Raises:
        ValueError: the model is no causal language model, has fewer tokens or a shorter context than the rows,
            the tokenizer is another one, a batch or a sequence is spread over several devices, or FSDP is of the first
            version.
    """
    require_engine(trainer, adds_gradient=False)
    model: PreTrainedModel = unwrap(trainer.model)
    metadata = rehearsal.metadata
    if not predicts_next_token(model):
        raise ValueError(
            f"expected a causal language model to rehearse with, got {type(model).__name__}; load it with "
            "`AutoModelForCausalLM`, or train without `rehearsal`"
        )
    config = trainer.accelerator.parallelism_config
    if trainer.args.n_gpu > 1 or (config is not None and config.non_data_parallel_size > 1):
        raise ValueError(
            "expected each device to have rows of its own, for rehearsal rows to ride with them, got a batch or its "
            "sequences spread over several; launch a process a GPU (`accelerate launch`), or show the one process one "
            "GPU (CUDA_VISIBLE_DEVICES=0), without tensor, context or sequence parallelism"
        )
    if (tokenizer := tokenizer_of(trainer.processing_class)) is not None:
        require_tokenizer(metadata, tokenizer)
    if trainer.args.use_liger_kernel:
        raise ValueError(
            "expected use_liger_kernel=False beside `rehearsal`, got True, which computes the loss without the logits "
            "that rehearsal holds; switch it off"
        )
    vocab_size = model.config.get_text_config().vocab_size
    if vocab_size < metadata["vocab_size"]:
        raise ValueError(
            f"expected rehearsal rows of the model's {vocab_size} tokens or fewer, got answers of a model with "
            f"{metadata['vocab_size']}; generate rows with the model that is trained"
        )
    table = rehearsal.rows.with_format("arrow")[:]
    require_within_context(model, max(lengths_of(table)))
    ids = torch.tensor(pc.list_flatten(table["input_ids"]).to_numpy())
    require_known_tokens(model, {"input_ids": ids})

"""Checkpoints of causal language models, whatever tool wrote them, as stored tensors by the model's own names."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..engines import row_blocks
from ..storage import StoredTensors, local_folder, open_checkpoint, open_shards, read_json, write_shards
from .line import line_tensors

_FILES = ["*.json", "*.jinja", "*.py", "*.txt", "*.model", "model*.safetensors", "adapter_model.safetensors"]
"""Of a repository of the Hub: configurations, code, the tokenizer and the weights."""


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk.

    Attributes:
        folder: of its configuration.
        model_class: that its configuration names.
        config: its configuration.
        tensors: what lies on a line, by the model's names.
        tied: the same tensors by the other names that they have in the model.
    """

    folder: Path
    model_class: str
    config: dict[str, object]
    tensors: StoredTensors
    tied: StoredTensors


def find_checkpoint(source: str | os.PathLike[str]) -> Path:
    """Return the folder of a checkpoint or an adapter, downloaded where it is a Hub id.

    Raises:
        ValueError: neither a folder nor a Hub id that can be reached.
    """
    return local_folder(source, _FILES)


def open_model(folder: Path, scratch: Path, trust_remote_code: bool = False) -> Checkpoint:
    """Load a model once, to learn its names, and find its tensors on disk.

    They are read from the checkpoint's own files where these hold, by the model's names, the numbers that loading
    gives; else from a copy that is written to `scratch`, with the names and the numbers that loading gave.

    Args:
        folder: of the checkpoint.
        scratch: a folder for the copy, made where it is needed.
        trust_remote_code: run the code that it brings along.

    Raises:
        ValueError: no causal language model, weights that are quantized or in no safetensors file, a tensor missing or
            of another shape than the configuration says, or a number that is NaN or infinite.
    """
    model = load_model(folder, "auto", trust_remote_code)
    tensors, config, model_class = line_tensors(model), model.config.to_dict(), type(model).__name__
    stored = open_checkpoint(folder, list(tensors))
    if stored is None or not all(_holds(stored, name, tensor) for name, tensor in tensors.items()):
        with ExitStack() as stack:
            write_shards(stack, scratch, "model", tensors, "5GB")
        stored = open_shards(scratch, "model")
    for name, tensor in stored.items():
        if not all(bool(torch.isfinite(block).all()) for block in row_blocks(tensor)):
            raise ValueError(
                f"expected finite weights in '{folder}', got NaN or Inf in '{name}'; take one from before it diverged"
            )
    names = {id(tensor): name for name, tensor in tensors.items()}
    held = {name: names.get(id(tensor)) for name, tensor in model.state_dict(keep_vars=True).items()}
    tied = {alias: stored[name] for alias, name in held.items() if name is not None and alias not in stored}
    del model, tensors
    gc.collect()
    return Checkpoint(folder, model_class, config, stored, tied)


def load_model(folder: Path, dtype: str | torch.dtype, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a causal language model of which no weight is made up.

    Args:
        folder: of the checkpoint.
        dtype: of its weights; "auto" is that of the checkpoint.
        trust_remote_code: run the code that it brings along.

    Raises:
        ValueError: as `open_model`.
    """
    if "quantization_config" in read_json(folder / "config.json"):
        raise ValueError(
            f"expected weights in floating point, got a quantized model in '{folder}'; dequantize it first"
        )
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"expected a checkpoint in safetensors in '{folder}', got {type(error).__name__}: {error}; save the model "
            "there with `save_pretrained`, or copy it again"
        ) from error
    if missing := sorted(found["missing_keys"]):
        raise ValueError(
            f"expected all weights of the model in '{folder}', got none for '{missing[0]}' ({len(missing)} are "
            "missing); save the whole model"
        )
    if mismatched := sorted(found["mismatched_keys"]):
        name, got, expected = mismatched[0]
        raise ValueError(
            f"expected '{name}' of the shape {tuple(expected)} that the configuration in '{folder}' says, got "
            f"{tuple(got)}; save configuration and weights together"
        )
    return model


def _holds(stored: StoredTensors, name: str, loaded: torch.Tensor) -> bool:
    """Tell whether a stored tensor, in the dtype that it was loaded in, is the loaded one."""
    tensor = stored[name]
    blocks = zip(row_blocks(tensor), row_blocks(loaded), strict=True) if tensor.shape == loaded.shape else ()
    return tensor.shape == loaded.shape and all(torch.equal(one.to(loaded.dtype), other) for one, other in blocks)

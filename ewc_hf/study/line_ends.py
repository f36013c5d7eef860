"""The two ends of a line: an old and a tuned model on disk, found to be of one architecture."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..engines import launched, row_blocks
from ..storage import StoredTensors, load_tokenizer
from .adapters import is_adapter, merge_adapter
from .checkpoints import Checkpoint, find_checkpoint, load_model, open_model
from .line import require_same_tensors

logger = logging.get_logger(__name__)

_NO_ARITHMETIC = {
    "_name_or_path", "transformers_version", "architectures", "dtype", "use_cache", "tie_word_embeddings",
    "bos_token_id", "eos_token_id", "pad_token_id",
}  # fmt: skip
"""What a configuration says that does not change what the same weights compute."""


@dataclass(frozen=True)
class LineEnds:
    """What a line joins.

    Attributes:
        model: folder of the tuned model, which gives the line its configuration.
        base: the old weights, by the tuned model's names.
        tuned: the tuned weights.
        tokenizer: folder of the tokenizer: the tuned one's, else the base's.
        generation: folder of the generation configuration: likewise, or the tuned one's if neither has it.
        trust_remote_code: run the code that they bring along.
    """

    model: Path
    base: StoredTensors
    tuned: StoredTensors
    tokenizer: Path
    generation: Path
    trust_remote_code: bool

    def load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return the tuned model, in float32, where this process computes, and its tokenizer."""
        model = load_model(self.model, torch.float32, self.trust_remote_code).to(launched().device)
        return model, load_tokenizer(self.tokenizer, self.trust_remote_code)


def open_ends(
    base: str | os.PathLike[str], tuned: str | os.PathLike[str], scratch: Path, trust_remote_code: bool = False
) -> LineEnds:
    """Find two models on disk and read both once, one after the other.

    Args:
        base: the old model, a folder or Hub id.
        tuned: the tuned model, or an adapter of the old one.
        scratch: a folder for copies: of a merged adapter, and of what is stored by other names than the model's.
        trust_remote_code: run the code that they bring along.

    Raises:
        ValueError: one cannot be loaded or has weights that are not finite; they are of different architectures, or
            all weights are the same; there is no tokenizer.
    """
    old_folder, given = find_checkpoint(base), find_checkpoint(tuned)
    if is_adapter(old_folder):
        raise ValueError(f"expected a whole model as base, got the adapter '{base}'; merge it and save the model")
    tokenizer = tokenizer_folder(old_folder, given)
    new_folder = given
    if is_adapter(given):
        new_folder = merge_adapter(old_folder, given, scratch / "merged", trust_remote_code)
    old, new = (
        open_model(folder, scratch / end, trust_remote_code)
        for folder, end in ((old_folder, "base"), (new_folder, "tuned"))
    )
    old_tensors = _by_the_names_of(new, old)
    _require_different(old_tensors, new.tensors)
    changed = sorted(
        key for key in old.config.keys() | new.config.keys() if old.config.get(key) != new.config.get(key)
    )
    if changed := [key for key in changed if key not in _NO_ARITHMETIC]:
        logger.warning(f"The line has the tuned model's configuration, which differs from the base's in {changed}")
    generation = _first_with(("generation_config.json",), new_folder, old_folder)
    return LineEnds(new_folder, old_tensors, new.tensors, tokenizer, generation or new_folder, trust_remote_code)


def tokenizer_folder(base: str | os.PathLike[str], tuned: str | os.PathLike[str]) -> Path:
    """Return the folder of the tuned model's tokenizer, or else of the base's.

    Raises:
        ValueError: neither has one.
    """
    folder = _first_with(("tokenizer.json", "tokenizer_config.json"), find_checkpoint(tuned), find_checkpoint(base))
    if folder is None:
        raise ValueError(f"expected a tokenizer in '{tuned}' or '{base}', got none; save it beside one of the models")
    return folder


def _by_the_names_of(new: Checkpoint, old: Checkpoint) -> StoredTensors:
    """Return the old tensors by the names of the tuned model, whose weights may be tied no more."""
    if old.model_class != new.model_class:
        raise ValueError(
            f"expected base and tuned of one architecture, got {old.model_class} in '{old.folder}' and "
            f"{new.model_class} in '{new.folder}'; pass the model that the tuned one was trained from"
        )
    untied = {name: tensor for name, tensor in old.tied.items() if name in new.tensors}
    tensors = {**old.tensors, **untied}
    require_same_tensors(tensors, new.tensors, "base", "tuned")
    return tensors


def _require_different(base: StoredTensors, tuned: StoredTensors) -> None:
    for name, tensor in tuned.items():
        dtype = torch.promote_types(base[name].dtype, tensor.dtype)
        for old, new in zip(row_blocks(base[name]), row_blocks(tensor), strict=True):
            if not torch.equal(old.to(dtype), new.to(dtype)):
                return
    raise ValueError("expected a tuned model, got one with the base's weights; there is no line between them")


def _first_with(names: tuple[str, ...], *folders: Path) -> Path | None:
    """Return the first of the folders that has one of the files."""
    return next((folder for folder in folders if any((folder / name).is_file() for name in names)), None)

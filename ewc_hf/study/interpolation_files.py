"""The files of an interpolation, all of which appear once they are written whole."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from .line import WeightLine, line_tensors
from .line_ends import LineEnds


def write_model(
    folder: Path,
    model: PreTrainedModel,
    ends: LineEnds,
    tokenizer: PreTrainedTokenizerBase,
    t: float,
    card: str,
) -> None:
    """Write the model at `t` with all that belongs to it; the model given becomes that model.

    Args:
        folder: where it goes.
        model: of the line, in any precision.
        ends: of the line; the tuned one's dtypes are those of the files.
        tokenizer: of the model.
        t: where on the line.
        card: content of README.md.
    """
    model.cpu()
    for name, tensor in line_tensors(model).items():
        tensor.data = torch.empty_like(tensor, dtype=ends.tuned[name].dtype)
    WeightLine(model, ends.base, ends.tuned).move_to(t)
    if (ends.generation / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(ends.generation)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")

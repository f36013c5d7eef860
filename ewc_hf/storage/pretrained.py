"""Causal language models and their tokenizers, from a folder or the Hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .hub import hub_arguments


def load_causal_lm(
    name: str | os.PathLike[str], dtype: torch.dtype | str = torch.float32, trust_remote_code: bool = False
) -> Any:
    """Load a model, or an adapter with the base that its configuration names.

    Args:
        name: a folder, or a Hub id with @revision/folder.
        dtype: of its weights; "auto" is that of the checkpoint.
        trust_remote_code: run the code that it brings along.

    Raises:
        ValueError: it cannot be loaded.
    """
    where = hub_arguments(name)
    with _named(name):
        return AutoModelForCausalLM.from_pretrained(**where, dtype=dtype, trust_remote_code=trust_remote_code)


def load_tokenizer(name: str | os.PathLike[str], trust_remote_code: bool = False) -> Any:
    """Load a model's tokenizer; arguments and errors as `load_causal_lm`."""
    where = hub_arguments(name)
    with _named(name):
        return AutoTokenizer.from_pretrained(**where, trust_remote_code=trust_remote_code)


@contextmanager
def _named(name: str | os.PathLike[str]) -> Iterator[None]:
    """Say of which model an error is."""
    try:
        yield
    except (OSError, ValueError) as error:
        cure = "; check the path, the name and the network" if isinstance(error, OSError) else ""
        raise ValueError(f"expected a model that can be loaded, got '{name}' ({error}){cure}") from error

"""How a command loads a model and its tokenizer."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..storage import load_causal_lm, load_tokenizer


class Dtype(StrEnum):
    """In which numbers a model is loaded and computes."""

    FLOAT32 = "float32"
    """As the recipes load it, whatever the checkpoint holds."""
    BFLOAT16 = "bfloat16"
    """Half the memory; to be compared with others of this dtype only."""


@dataclass
class CodeArguments:
    """Whose code is run."""

    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run the code that a model brings along, where transformers has none for it."}
    )

    def model(self, name: str, dtype: Dtype | str = Dtype.FLOAT32) -> Any:
        """Load a causal language model, or an adapter with its base: a folder or a Hub id, with @revision/folder."""
        return load_causal_lm(name, Dtype(dtype).value, self.trust_remote_code)

    def tokenizer(self, name: str | os.PathLike[str]) -> Any:
        """Load its tokenizer."""
        return load_tokenizer(name, self.trust_remote_code)


@dataclass
class LoadingArguments(CodeArguments):
    """In which numbers it computes, and whose code is run."""

    dtype: Dtype | str = field(
        default=Dtype.FLOAT32, metadata={"help": "'float32' or 'bfloat16'; compare values of one dtype only."}
    )

    def model(self, name: str, dtype: Dtype | str | None = None) -> Any:
        """Load a model as `CodeArguments` does, in this dtype."""
        return super().model(name, dtype or self.dtype)

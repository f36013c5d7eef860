"""How a command loads a model and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from transformers.utils import find_adapter_config_file

from ..storage import hub_arguments, load_causal_lm, load_tokenizer


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

    def model(self, name: str, dtype: Dtype | str = Dtype.FLOAT32, base: str | None = None) -> Any:
        """Load a causal language model: a folder or a Hub id, with @revision/folder.

        Args:
            name: of the model, or of an adapter.
            dtype: of its weights.
            base: of the model that an adapter is put on; None is the one that its configuration names.

        Raises:
            ValueError: it cannot be loaded, or is an adapter that does not fit the base.
        """
        if base is None or not _is_adapter(name):
            return load_causal_lm(name, Dtype(dtype).value, self.trust_remote_code)
        model = self.model(base, dtype)
        where = hub_arguments(name)
        try:
            model.load_adapter(where.pop("pretrained_model_name_or_path"), adapter_kwargs=where)
        except RuntimeError as error:
            raise ValueError(
                f"expected an adapter of '{base}', got '{name}', which does not fit; pass as base the model that it "
                "was trained on"
            ) from error
        return model

    def tokenizer(self, name: str) -> Any:
        """Load its tokenizer."""
        return load_tokenizer(name, self.trust_remote_code)


@dataclass
class LoadingArguments(CodeArguments):
    """In which numbers it computes, and whose code is run."""

    dtype: Dtype | str = field(
        default=Dtype.FLOAT32, metadata={"help": "'float32' or 'bfloat16'; compare values of one dtype only."}
    )

    def model(self, name: str, dtype: Dtype | str | None = None, base: str | None = None) -> Any:
        """Load a model as `CodeArguments` does, in this dtype."""
        return super().model(name, dtype or self.dtype, base)


def _is_adapter(name: str) -> bool:
    where = hub_arguments(name)
    return find_adapter_config_file(where.pop("pretrained_model_name_or_path"), **where) is not None

"""Adapters of PEFT, merged into the weights that they were trained on."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path

from .checkpoints import load_model


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder holds an adapter and not a whole model."""
    return (folder / "adapter_config.json").is_file()


def merge_adapter(base: Path, adapter: Path, scratch: Path) -> Path:
    """Write the model that an adapter makes of its base, in the base's precision, and return its folder.

    Args:
        base: folder of the model that the adapter was trained on.
        adapter: folder with `adapter_config.json`.
        scratch: where the model goes.

    Raises:
        ValueError: PEFT is not installed, the adapter is in no safetensors file, fits another base, or cannot be
            merged.
    """
    try:
        from peft import PeftConfig, PeftModel
        from peft.tuners.tuners_utils import BaseTuner
    except ImportError as error:
        raise ValueError(f"expected PEFT for the adapter in '{adapter}', got {error}; pip install peft") from error
    if not (adapter / "adapter_model.safetensors").is_file():
        raise ValueError(
            f"expected the file 'adapter_model.safetensors' in '{adapter}', got no such file; save the adapter with "
            "`safe_serialization=True`"
        )
    kind = PeftConfig.from_pretrained(str(adapter)).peft_type.value
    model = load_model(base, "auto")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            tuned = PeftModel.from_pretrained(model, str(adapter))
    except (KeyError, RuntimeError, UserWarning, ValueError) as error:
        raise ValueError(
            f"expected an adapter of the model in '{base}', got one in '{adapter}' that does not fit ({error}); pass "
            "as base the model that it was trained on"
        ) from error
    if not isinstance(tuned.base_model, BaseTuner):
        raise ValueError(
            f"expected an adapter that can be merged into the weights, as LoRA's can, got {kind} in '{adapter}'; a "
            "line needs other weights"
        )
    tuned.merge_and_unload().save_pretrained(scratch)
    del model, tuned
    gc.collect()
    return scratch

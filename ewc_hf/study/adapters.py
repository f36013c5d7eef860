"""Adapters of PEFT, merged into the weights that they were trained on."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path

from .checkpoints import load_model


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder holds an adapter and not a whole model."""
    return (folder / "adapter_config.json").is_file()


def merge_adapter(base: Path, adapter: Path, scratch: Path, trust_remote_code: bool = False) -> Path:
    """Write the model that an adapter makes of its base, in the base's precision, and return its folder.

    Args:
        base: folder of the model that the adapter was trained on.
        adapter: folder with `adapter_config.json`.
        scratch: where the model goes.
        trust_remote_code: run the code that the base brings along.

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
    model = load_model(base, "auto", trust_remote_code)
    problem = ""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            adapted = PeftModel.from_pretrained(model, str(adapter))
        if isinstance(adapted.base_model, BaseTuner):
            unused = adapted.load_adapter(str(adapter), "default").unexpected_keys  # only a second loading tells them
            problem = f"the base has no place for {unused}" if unused else ""
    except (KeyError, RuntimeError, UserWarning, ValueError) as error:
        problem = str(error)
    if problem:
        raise ValueError(
            f"expected an adapter of the model in '{base}', got one in '{adapter}' that does not fit ({problem}); "
            "pass as base the model that it was trained on"
        )
    if not isinstance(adapted.base_model, BaseTuner):
        raise ValueError(
            f"expected an adapter that can be merged into the weights, as LoRA's can, got {kind} in '{adapter}'; a "
            "line needs other weights"
        )
    adapted.merge_and_unload().save_pretrained(scratch)
    del model, adapted
    gc.collect()
    return scratch

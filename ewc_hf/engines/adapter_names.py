"""The names that parameters have without the adapters that PEFT puts around them."""

from __future__ import annotations

import sys
from collections.abc import Callable

from torch import nn


def names_without_adapters(model: nn.Module) -> Callable[[str], str]:
    """Return what makes of the name of a parameter the one that it has in the model without adapters.

        base_model.model.h.0.attn.base_layer.weight     ->  h.0.attn.weight
        base_model.model.ln.modules_to_save.tuned.bias  ->  ln.bias, where the adapter `tuned` is in use
        base_model.model.wte.token_adapter.base_layer.weight  ->  wte.weight, some of whose rows are trained
        base_model.model.h.0.attn.lora_A.tuned.weight   ->  h.0.attn.lora_A.tuned.weight

    Args:
        model: PEFT's own, or one with adapters in it.
    """
    if sys.modules.get("peft") is None:
        return lambda name: name
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper, TrainableTokensWrapper

    shorter: dict[str, str] = {}
    for place, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            shorter.setdefault(f"{place}.base_layer", place)
        elif isinstance(module, TrainableTokensWrapper):
            shorter[f"{place}.token_adapter.base_layer"] = place
        elif isinstance(module, ModulesToSaveWrapper):
            shorter |= {f"{place}.modules_to_save.{adapter}": place for adapter in module.active_adapters}
    prefix = "base_model.model." if isinstance(model, PeftModel) else ""

    def without_adapters(name: str) -> str:
        place, _, last = name.rpartition(".")
        while place and place not in shorter:
            place, _, before = place.rpartition(".")
            last = f"{before}.{last}"
        name = f"{shorter[place]}.{last}" if place else name
        return name.removeprefix(prefix)

    return without_adapters

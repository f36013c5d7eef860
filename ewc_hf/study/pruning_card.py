"""The model card of a pruned model: how much of it is zero, by which criterion, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..importance import PruningScope
from ..storage import markdown_table

if TYPE_CHECKING:
    from .pruned_checkpoint import PrunedCheckpoint


def pruning_card(name: str, pruned: PrunedCheckpoint, command: str) -> str:
    """Return the content of README.md for a pruned model.

    Args:
        name: the model's.
        pruned: how it was pruned, and what that cost.
        command: how it was made.
    """
    parent = "" if Path(pruned.model).exists() else f"base_model: {pruned.model}\n"
    among = "the network" if pruned.scope is PruningScope.NETWORK else "each layer"
    by = f"importance in `{pruned.criterion}`" if Path(pruned.criterion).is_dir() else pruned.criterion
    return f"""---
library_name: transformers
pipeline_tag: text-generation
{parent}tags:
- ewc_hf
- pruning
---

# {name}

`{pruned.model}` with **{pruned.sparsity:.1%}** of the weights of its linear layers set to zero, those of the least
{by} of {among}. Embeddings, norms and biases are whole. It loads and runs as any other model: zeros save neither time
nor memory unless something makes use of them.
{_measured(pruned)}
Made by

```
{command}
```
"""


def _measured(pruned: PrunedCheckpoint) -> str:
    rows = [["", "NLL (nats per token)", "95% interval over documents", "perplexity per token"]]
    for when, result in (("before", pruned.before), ("after", pruned.after)):
        if result is not None:
            interval = "-" if result.nll_interval is None else "{:.4f} to {:.4f}".format(*result.nll_interval)
            rows.append([when, f"{result.nll:.4f}", interval, f"{result.perplexity:.2f}"])
    return f"\n{markdown_table(rows)}\n" if len(rows) > 1 else ""

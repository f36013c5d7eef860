"""The model card of a pruned model: how much of it is zero, by which criterion, and what that costs."""

from __future__ import annotations

from pathlib import Path

from ..evaluation import PerplexityResult
from ..storage import markdown_table


def pruning_card(
    name: str, model: str, criterion: str, scope: str, sparsity: float, results: list[PerplexityResult], command: str
) -> str:
    """Return the content of README.md for a pruned model.

    Args:
        name: the pruned model's.
        model: the model that was pruned, a folder or a Hub id.
        criterion: by which the weights were chosen.
        scope: among which: "the network", or "each layer".
        sparsity: the share of the weights of linear and convolutional layers that are zero.
        results: perplexity before and after; may be empty.
        command: how it was made.
    """
    parent = "" if Path(model).exists() else f"base_model: {model}\n"
    measured = ""
    if results:
        rows = [["", "NLL (nats per token)", "95% interval over documents", "perplexity per token"]]
        for when, result in zip(("before", "after"), results, strict=True):
            interval = "-" if result.nll_interval is None else "{:.4f} to {:.4f}".format(*result.nll_interval)
            rows.append([when, f"{result.nll:.4f}", interval, f"{result.perplexity:.2f}"])
        measured = f"\n{markdown_table(rows)}\n"
    return f"""---
library_name: transformers
pipeline_tag: text-generation
{parent}tags:
- ewc_hf
- pruning
---

# {name}

`{model}` with **{sparsity:.1%}** of the weights of its linear layers set to zero, those of the least {criterion}
among the weights of {scope}. Embeddings, norms and biases are whole. It loads and runs as any other model: zeros save
neither time nor memory unless something makes use of them.
{measured}
Made by

```
{command}
```
"""

"""The model card of a model between two others: where it lies, what it costs and gives, and how it was made."""

from __future__ import annotations

from pathlib import Path

from ..storage import markdown_table
from .interpolation_result import Interpolation
from .line_points import Interval, LinePoint


def model_card(name: str, result: Interpolation, command: str) -> str:
    """Return the content of README.md for the chosen model.

    Args:
        name: the model's.
        result: what was measured; one model is chosen.
        command: how it was made.
    """
    chosen, names = result.chosen, result.names
    assert chosen is not None, "a card is of a chosen model"
    start, end = result.points[0], result.points[-1]
    on_the_hub = [source for source in (result.base, result.tuned) if not Path(source).exists()]
    parents = "".join(["base_model:\n", *(f"- {source}\n" for source in on_the_hub)]) if on_the_hub else ""
    return f"""---
library_name: transformers
pipeline_tag: text-generation
{parents}tags:
- ewc_hf
- interpolation
---

# {name}

`w = w_base + t * (w_tuned - w_base)` with **t = {chosen.t:.6g}**: a model on the straight line between an old and a
tuned one ([Wortsman et al. 2022](https://arxiv.org/abs/2109.01903)).

| | |
|---|---|
| base | `{result.base}` |
| tuned | `{result.tuned}` |
| t | {chosen.t:.6g} |
| chosen as | {result.budget} |

Of what fine-tuning gave on {names.task} it keeps {_share(chosen.task_nll, start.task_nll, end.task_nll)},
of what that cost on {names.retention} {_share(chosen.forgetting, start.forgetting, end.forgetting)}.

{markdown_table(_table(result))}

NLL and forgetting in nats per token, perplexity per token; forgetting is the rise of the NLL on {names.retention} over
the base model's. In brackets: 95% bootstrap intervals over documents, that of forgetting comparing the two models
document by document. Measured in float32; {_options(result)}.

![Forgetting over the NLL on {names.task}](interpolation.png)

Made by

```
{command}
```
"""


def _share(value: float, start: float, end: float) -> str:
    return f"{(value - start) / (end - start):.0%}" if end != start else "all"


def _options(result: Interpolation) -> str:
    return ", ".join(f"{name}: {'default' if value is None else value}" for name, value in result.measured.items())


def _table(result: Interpolation) -> list[list[str]]:
    task, retention = result.names.task, result.names.retention
    head = ["t", f"NLL on {task}", f"perplexity on {task}", f"NLL on {retention}", f"perplexity on {retention}"]
    return [[*head, "forgetting"], *(_row(point, chosen=point == result.chosen) for point in result.points)]


def _row(point: LinePoint, chosen: bool) -> list[str]:
    cells = [
        f"{point.t:.6g}",
        f"{point.task_nll:.4f}{_brackets(point.task_nll_interval)}",
        f"{point.task_perplexity:.2f}",
        f"{point.retention_nll:.4f}{_brackets(point.retention_nll_interval)}",
        f"{point.retention_perplexity:.2f}",
        f"{point.forgetting:.4f}{_brackets(point.forgetting_interval)}",
    ]
    return [f"**{cell}**" for cell in cells] if chosen else cells


def _brackets(interval: Interval) -> str:
    return "" if interval is None else " [{:.4f}, {:.4f}]".format(*interval)

"""After training, a slider: models on the straight line between old and tuned weights, and the one that is kept."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm.auto import tqdm

from ..engines import require_one_process
from ..storage import json_bytes, write_files
from .budget import Budget, farthest_point, parse_budget
from .interpolation_card import model_card
from .interpolation_files import write_model
from .interpolation_picture import draw_interpolation
from .interpolation_result import Interpolation
from .line import WeightLine
from .line_ends import open_ends
from .line_points import LinePoint, LineReader, LineTexts
from .output_folder import publish, require_room
from .records import TextNames

_POINTS = 11
"""Of a curve without a budget."""


def interpolate(
    base: str | os.PathLike[str],
    tuned: str | os.PathLike[str],
    retention_texts: Sequence[str],
    task_texts: Sequence[str],
    output_dir: str | os.PathLike[str],
    *,
    max_forgetting: float | None = None,
    max_task_loss: float | str | None = None,
    points: int | None = None,
    stride: int | None = None,
    window: int | None = None,
    max_document_tokens: int | None = None,
    bos_in_each_window: bool = False,
    batch_size: int = 8,
    seed: int = 0,
    names: TextNames | None = None,
    command: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Interpolation:
    """Measure models between an old and a tuned one, and with a budget write the one that uses it up.

    `w(t) = w_base + t * (w_tuned - w_base)`

    >>> found = interpolate("base", "tuned", books, dialogs, "slid", max_forgetting=0.05)
    >>> found.chosen.forgetting <= 0.05
    True

    Each point costs one evaluation of both texts. `max_forgetting` chooses the largest `t` found whose forgetting on
    the retention text is at most the budget, by a search that ends within 5% of it; `max_task_loss` the smallest
    one whose task NLL is, likewise. Where even the far end costs no more, that is chosen.

    One model is in memory, in float32, with a few rows of a tensor: the ends stay on disk. Written are, by way of
    temporary names, `interpolation.json` and `interpolation.png`, and with a budget the chosen model, in the dtypes of
    the tuned checkpoint, with configuration, tokenizer, generation configuration and model card.

    Args:
        base: the old model, a folder or Hub id.
        tuned: the tuned model of the same architecture, or an adapter of the old one that PEFT can merge.
        retention_texts: held-out documents like the text that was learned first.
        task_texts: held-out documents of the task.
        output_dir: where the files go; it may not hold a model already if one is chosen.
        max_forgetting: nats per token.
        max_task_loss: a rise of the task NLL over the tuned model's: "+2%" or 0.02.
        points: models at equal distances that are measured in any case; by default the two ends where there is a
            budget, else 11.
        stride: as `evaluate_perplexity`'s, like all up to `seed`.
        window: tokens that the model sees.
        max_document_tokens: cut documents after so many tokens.
        bos_in_each_window: repeat the beginning-of-text token in each window.
        batch_size: windows a forward pass.
        seed: of the bootstrap intervals.
        names: what model card and picture call the texts; by default "task" and "retention".
        command: how the model card says that the model was made; by default this call.
        trust_remote_code: run the code that the models bring along.
        progress: show a progress bar.

    Raises:
        ValueError: a number out of range, both budgets, more than one process, an output folder that holds a model;
            and as `open_ends` and `evaluate_perplexity`. Then nothing is written.

    Reference:
        Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT), arXiv 2109.01903, section 3.
    """
    budget = parse_budget(max_forgetting, max_task_loss)
    number = (_POINTS if budget is None else 2) if points is None else points
    if number < 2:
        raise ValueError(f"expected points >= 2, the two ends among them, got {points}")
    require_one_process()
    output = Path(output_dir).resolve()
    require_room(output, for_a_model=budget is not None)
    texts = LineTexts(
        retention_texts, task_texts, stride, window, max_document_tokens, bos_in_each_window, batch_size, seed
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        scratch, made = Path(temporary), Path(temporary) / "made"
        ends = open_ends(base, tuned, scratch, trust_remote_code)
        model, tokenizer = ends.load()
        reader = LineReader(model, WeightLine(model, ends.base, ends.tuned), tokenizer, texts)
        chosen = _measure(reader, number, budget, progress)
        result = Interpolation(
            str(base), str(tuned), reader.points(), budget, chosen, texts.options(), names or TextNames()
        )
        made.mkdir()
        if chosen is not None:
            card = model_card(output.name, result, command or f'interpolate("{base}", "{tuned}", ...)')
            write_model(made, model, ends, tokenizer, chosen.t, card)
        record = json_bytes(result.to_json())
        write_files(made, {"interpolation.png": draw_interpolation(result), "interpolation.json": record})
        publish(made, output)
    return result


def _measure(reader: LineReader, number: int, budget: Budget | None, progress: bool) -> LinePoint | None:
    """Measure so many models at equal distances, and with a budget those that the search asks for."""
    total = number if budget is None else None
    with tqdm(total=total, desc="interpolate", unit="model", disable=not progress) as bar:

        def measure(t: float) -> LinePoint:
            point = reader.measure(t)
            bar.set_postfix_str(
                f"t {t:.4f}, NLL {point.task_nll:.4f}, forgetting {point.forgetting:.4f}", refresh=False
            )
            bar.update()
            return point

        points = [measure(step / (number - 1)) for step in range(number)]
        for point, end in ((points[0], "base"), (points[-1], "tuned")):
            if not math.isfinite(point.task_nll + point.retention_nll):
                raise ValueError(
                    f"expected a finite NLL of the {end} model, got {point.task_nll} on the task and "
                    f"{point.retention_nll} on the retention text; take one from before it diverged"
                )
        return None if budget is None else farthest_point(budget, points, measure)

"""The report of tasks in a row: what each setting knew of every text after every task."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from ..storage import colour, json_bytes, markdown_table, panels, png, write_files
from .records import group_by, mean_and_interval, with_interval
from .sequence import SequenceRun

_NOTE = (
    "NLL in nats per token, of held-out text. Learned: its mean over the tasks, each right after it was learned. "
    "Average forgetting: the mean over all texts but the last of the NLL at the end minus the lowest one before, "
    "since the text was learned (Chaudhry et al. 2018, arXiv 1801.10112, there of accuracy). Backward transfer: minus "
    "the mean of the NLL at the end minus that right after the text was learned, so that below 0 is forgetting "
    "(Lopez-Paz & Ranzato 2017, arXiv 1706.08840). The pretraining's text counts as learned before the first task. "
    "With two seeds or more: mean ± half-width of its 95% t-interval over seeds."
)


def learned(run: SequenceRun) -> float:
    """Mean over the tasks of the NLL right after each was learned, in nats per token."""
    return float(np.mean(np.diagonal(run.nll)[1:]))


def average_forgetting(run: SequenceRun) -> float:
    """Mean over all texts but the last of `NLL at the end - lowest NLL before, since the text was learned`.

    Reference: Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning" (arXiv 1801.10112), section 4.
    """
    nll = np.array(run.nll)
    return float(np.mean([nll[-1, text] - nll[text:-1, text].min() for text in range(len(nll) - 1)]))


def backward_transfer(run: SequenceRun) -> float:
    """Minus the mean over all texts but the last of `NLL at the end - NLL right after the text was learned`.

    Reference: Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory" (arXiv 1706.08840), eq. 3, with minus the NLL in
    place of the accuracy.
    """
    nll = np.array(run.nll)
    return float(-np.mean(nll[-1, :-1] - np.diagonal(nll)[:-1]))


def write_sequence(runs: Sequence[SequenceRun], names: Sequence[str], folder: Path, title: str) -> str:
    """Write `tasks.json`, `tasks.md` and `tasks.png`, each by way of a temporary name.

    Args:
        runs: of all settings and seeds.
        names: of the texts, in their order.
        folder: made where it is missing.
        title: of page and picture.

    Returns:
        The page, in Markdown.
    """
    settings = group_by(runs, attrgetter("setting"))
    summary = [["setting", "seeds", "learned", "average forgetting", "backward transfer", "at the end, of all texts"]]
    for name, of_setting in settings.items():
        scores = (learned, average_forgetting, backward_transfer, lambda run: float(np.mean(run.nll[-1])))
        cells = [_cell([score(run) for run in of_setting]) for score in scores]
        summary.append([name, str(len(of_setting)), *cells])
    sections = [f"# {title}", markdown_table(summary), _NOTE]
    for name, of_setting in settings.items():
        matrix = [["after", *names]]
        for row, after in enumerate(names):
            matrix.append([after, *(_cell([run.nll[row][text] for run in of_setting]) for text in range(len(names)))])
        sections += [f"## {name}", markdown_table(matrix)]
    page = "\n\n".join(sections) + "\n"
    record = {"texts": list(names), "runs": [dataclasses.asdict(run) for run in runs]}
    picture = _picture(settings, names, title)
    write_files(folder, {"tasks.md": page.encode(), "tasks.png": picture, "tasks.json": json_bytes(record)})
    return page


def _cell(values: Sequence[float]) -> str:
    return with_interval(*mean_and_interval(values), decimals=3)


def _picture(settings: dict[str, list[SequenceRun]], names: Sequence[str], title: str) -> bytes:
    """A panel a text: its NLL after each task, a curve a setting, seeds as a band from the lowest to the highest."""
    note = "NLL of held-out text after each task, a panel a text; dotted: when it was learned; bands: over seeds"
    figure, drawn = panels(title, len(names), 3.1, note)
    steps = range(len(names))
    for text, (name, axes) in enumerate(zip(names, drawn, strict=True)):
        for number, runs in enumerate(settings.values()):
            values = np.array([[row[text] for row in run.nll] for run in runs])
            axes.plot(steps, values.mean(0), "o-", c=colour(number), ms=4)
            axes.fill_between(steps, values.min(0), values.max(0), color=colour(number), alpha=0.2, lw=0)
        if text > 0:
            axes.axvline(text, c="#999999", ls=":", lw=1)
        axes.set_title(name, loc="left", size=10)
        axes.set_xticks(steps, names, rotation=30, ha="right", size=8)
        axes.set_ylabel("NLL (nats per token)")
    handles = [Line2D([], [], c=colour(number), marker="o", ms=4, label=name) for number, name in enumerate(settings)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), frameon=False, fontsize=9)
    return png(figure)

"""What every form of a study's report says: its tables, each with a note, and which runs are missing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from ..importance import Method
from .curves import INCREASES, RemovedAt, removed_at
from .records import (
    PLAIN,
    MissingRun,
    RunRecord,
    TextNames,
    forgetting_interval,
    group_by,
    mean_and_interval,
    pretrained_of,
    with_interval,
)

_MIDDLE = len(INCREASES) // 2  # the increase that orders the curves
_SEEDS = "With two seeds or more: mean ± half-width of its 95% t-interval over seeds."

_INTERPOLATED_NOTE = """Models on the straight line from the pretrained to the trained weights of a run above. The
columns are the same."""


def _settings_note(names: TextNames) -> str:
    return f"""NLL and forgetting in nats per token; forgetting = rise of the NLL on {names.retention} over the
pretrained model; forgetting removed = 1 - forgetting / forgetting of plain fine-tuning with the same seed. {_SEEDS}
Time a step (the training's median) and peak memory: times plain fine-tuning's with the same seed, mean over seeds.
Over documents: 95% bootstrap interval of the mean forgetting, the documents of {names.retention} being drawn."""


def _crossings_note(names: TextNames) -> str:
    return f"""Forgetting removed where a method's curve over its strengths reaches an NLL on {names.task} so much
above plain fine-tuning's, and the strength that gets there (mean over seeds: geometric, or arithmetic where one is 0;
its inverse of learning rates, steps and budgets); a dash where a seed's curve does not get there between two of its
strengths. One strength makes no curve, and nothing is read on a straight line from plain fine-tuning unless that is a
point of the curve. Best first, by what is removed at +{INCREASES[_MIDDLE]:.0%}. {_SEEDS}"""


@dataclasses.dataclass(frozen=True)
class Section:
    """A table, the first row its head, and how to read it."""

    heading: str
    table: list[list[str]]
    note: str


def sections(records: Sequence[RunRecord], names: TextNames) -> list[Section]:
    """Every setting's means over its seeds, those of interpolated models apart, and `removed_at` at each increase.

    Args:
        records: of the runs, as `with_forgetting` fills them in.
        names: what the tables call the two texts.
    """
    trained = [run for run in records if run.fraction == 1]
    between = [run for run in records if run.fraction < 1]
    found = [Section("settings", _settings_table(trained, records, names), _settings_note(names))]
    if between:
        found.append(Section("interpolated", _settings_table(between, records, names), _INTERPOLATED_NOTE))
    return [*found, Section("removed_at", _crossings_table(records), _crossings_note(names))]


def share(records: Sequence[RunRecord], missing: Sequence[MissingRun]) -> str:
    """How many runs of an unfinished study are finished."""
    finished = sum(run.fraction == 1 for run in records)
    return f"unfinished: {finished} of {finished + len(missing)} runs"


def listed(missing: Sequence[MissingRun]) -> str:
    """Which runs are missing, by setting."""
    seeds = {name: [run.seed for run in runs] for name, runs in group_by(missing, attrgetter("name")).items()}
    return "; ".join(f"{name}, seed {', '.join(map(str, of_name))}" for name, of_name in seeds.items())


def _settings_table(shown: Sequence[RunRecord], records: Sequence[RunRecord], names: TextNames) -> list[list[str]]:
    columns = (  # heading, attribute, factor to the heading's unit, decimals
        (f"NLL on {names.task}", "task_nll", 1, 3),
        (f"perplexity on {names.task}", "task_perplexity", 1, 2),
        (f"NLL on {names.retention}", "retention_nll", 1, 3),
        (f"perplexity on {names.retention}", "retention_perplexity", 1, 2),
        ("forgetting (nats)", "forgetting", 1, 3),
        ("forgetting removed (%)", "forgetting_removed", 100, 1),
    )
    pretrained, plain = pretrained_of(records), {run.seed: run for run in records if run.name == PLAIN}
    headings = [column[0] for column in columns]
    costs = ["time a step", "peak memory", "forgetting over documents"]
    table = [["name", "method", "needs old text", "seeds", *headings, *costs]]
    for name, runs in group_by(shown, attrgetter("name")).items():
        row = [name, _method_title(runs[0]), _yes_or_no(runs[0].needs_old_text), str(len(runs))]
        for _, attribute, factor, decimals in columns:
            values = [*map(attrgetter(attribute), runs)]
            row.append(
                "-" if None in values else with_interval(*mean_and_interval(np.multiply(values, factor)), decimals)
            )
        row += [_times_plain(runs, plain, attribute) for attribute in ("seconds_a_step", "peak_memory_bytes")]
        interval = forgetting_interval(runs, pretrained)
        table.append([*row, "-" if interval is None else "{:.3f} to {:.3f}".format(*interval)])
    return table


def _crossings_table(records: Sequence[RunRecord]) -> list[list[str]]:
    headings = [text for x in INCREASES for text in (f"removed at +{x:.0%} (%)", f"strength at +{x:.0%}")]
    table = [["method", "needs old text", *headings]]
    curves = zip(*(removed_at(records, increase) for increase in INCREASES), strict=True)
    for curve in sorted(curves, key=_removed_in_the_middle, reverse=True):
        row = [curve[0].curve, _yes_or_no(curve[0].needs_old_text)]
        for at in curve:
            half_width = None if at.interval is None else 100 * at.interval
            row.append(
                "-" if at.forgetting_removed is None else with_interval(100 * at.forgetting_removed, half_width, 1)
            )
            row.append("-" if at.strength is None else f"{float(f'{at.strength:.3g}'):g}")
        table.append(row)
    return table


def _removed_in_the_middle(curve: Sequence[RemovedAt]) -> float:
    removed = curve[_MIDDLE].forgetting_removed
    return -math.inf if removed is None else removed


def _method_title(run: RunRecord) -> str:
    """The curve on which it is protected, or else what its method is called."""
    method = Method(run.method).title if run.method in list(Method) else run.method
    return next((title for title, strength in run.curves.items() if strength > 0), method)


def _times_plain(runs: Sequence[RunRecord], plain: dict[int | None, RunRecord], attribute: str) -> str:
    """A cost as a ratio to plain fine-tuning's, paired by seed as machines differ from one session to the next."""
    cost = attrgetter(attribute)
    pairs = [(cost(run), cost(plain[run.seed])) for run in runs if run.seed in plain]
    if len(pairs) < len(runs) or any(None in pair for pair in pairs):
        return "-"
    return f"{np.mean([own / of_plain for own, of_plain in pairs]):.2f}x"


def _yes_or_no(answer: bool) -> str:
    return "yes" if answer else "no"

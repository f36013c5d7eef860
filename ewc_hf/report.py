"""From run records to a report: forgetting, forgetting removed at equal task loss, as JSON, Markdown and a picture.

`dialog` is the task's held-out text, `book` the retention text; NLLs are means in nats per token. Runs of one setting
differ in their seed only; runs of one curve share method and coupling.
"""

import dataclasses
import io
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import BboxBase
from scipy import stats

PRETRAINED, PLAIN = "pretrained", "plain"
INCREASES = (0.01, 0.02, 0.05)  # rises of the dialog NLL over plain fine-tuning's, as fractions
_TITLE = "Fine-tuning without forgetting"
_NAMES = {"fisher": "EWC (Fisher)", "mas": "EWC (MAS)", "l2": "L2 to start"}
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito: colour-blind safe
_SIDES = ((1, 1), (-1, -1), (1, -1), (-1, 1), (0, 1), (0, -1), (1, 0), (-1, 0))  # of a point, tried for its label


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One evaluated model: a setting's run with one seed, or the pretrained model."""

    name: str  # the setting's, shared by its seeds; "pretrained" for the model before fine-tuning
    method: str  # "pretrained", "plain", or what protects the weights: "fisher", "mas", "l2", ...
    coupling: str | None  # "loss", "decoupled", or None where the method has none
    ewc_lambda: float  # strength, in the method's own unit; 0 for plain fine-tuning
    seed: int | None  # None for the pretrained model
    dialog_nll: float  # nats per token
    dialog_perplexity: float
    book_nll: float  # nats per token
    book_perplexity: float
    forgetting: float = 0.0  # book_nll - book_nll(pretrained), nats per token; filled by `with_forgetting`
    forgetting_removed: float | None = None  # 1 - forgetting / forgetting(plain, same seed), a fraction; likewise
    seconds: float  # wall-clock time
    peak_memory_bytes: int


@dataclasses.dataclass(frozen=True)
class RemovedAt:
    """What a curve removes of the forgetting where its dialog NLL is `1 + increase` times plain fine-tuning's."""

    method: str
    coupling: str | None
    increase: float  # a fraction: 0.02 for +2%
    forgetting_removed: float | None  # a fraction, mean over seeds; None if the curve of any seed never gets there
    interval: float | None  # half-width of its 95% t-interval; None for fewer than two seeds
    ewc_lambda: float | None  # strength that gets there, geometric mean over seeds
    seeds: int  # how many the curve has


def mean_and_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float | None]:
    """Mean and half-width of its 95% t-interval, `t(0.975, n-1) * std(ddof=1) / sqrt(n)`; `None` for one value.

    Raises:
        ValueError: If there is no value.
    """
    n = len(values)
    if n == 0:
        raise ValueError("expected at least one value to average, got none: pass one value a seed")
    half_width = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else None
    return float(np.mean(values)), half_width


def with_forgetting(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Copies of the records with `forgetting` and `forgetting_removed` filled; filling twice changes nothing.

    `forgetting_removed` is 0 for plain fine-tuning; `None` for the pretrained model, and where the plain run of the
    same seed is missing or forgot nothing.

    Raises:
        ValueError: If not exactly one record is named "pretrained", or two runs share method, coupling, lambda, seed.
    """
    records = list(records)
    starts = [run.book_nll for run in records if run.name == PRETRAINED]
    if len(starts) != 1:
        raise ValueError(
            f'expected one record named "pretrained", got {len(starts)}: evaluate the pretrained model once'
        )
    for key, runs in _group(records, attrgetter("method", "coupling", "ewc_lambda", "seed")).items():
        if len(runs) > 1:
            raise ValueError(
                f"expected one run a method, coupling, lambda and seed, got {len(runs)} of {key}: "
                "name a variant's method apart, or report it elsewhere"
            )
    plain = {run.seed: run.book_nll - starts[0] for run in records if run.method == PLAIN}

    def filled(run: RunRecord) -> RunRecord:
        forgetting, reference, removed = run.book_nll - starts[0], plain.get(run.seed, 0.0), None
        if run.method == PLAIN:
            removed = 0.0
        elif run.name != PRETRAINED and reference > 0:
            removed = 1 - forgetting / reference
        return dataclasses.replace(run, forgetting=forgetting, forgetting_removed=removed)

    return [filled(run) for run in records]


def removed_at(records: Iterable[RunRecord], increase: float) -> list[RemovedAt]:
    """Forgetting removed at equal task loss, one result a method and coupling.

    For each seed the points (dialog NLL, forgetting removed), ordered by lambda and preceded by that seed's plain run
    (lambda 0, removed 0), are joined by straight lines; read off is where these first cross
    `(1 + increase) * dialog_nll(plain)`. Lambda is interpolated geometrically between two positive lambdas, linearly
    from 0.

    Raises:
        ValueError: As `with_forgetting`, which is applied first; if `increase` is not a positive, finite fraction.
    """
    if not 0 < increase < math.inf:
        raise ValueError(f"expected a positive, finite rise of the dialog NLL, got {increase}: write +2% as 0.02")
    records = with_forgetting(records)
    plain = {run.seed: dataclasses.replace(run, ewc_lambda=0.0) for run in records if run.method == PLAIN}
    results = []
    for (method, coupling), runs in _curves(records).items():
        seeds = _group(runs, attrgetter("seed"))
        crossings = [_crossing([plain[seed], *seeds[seed]], increase) if seed in plain else None for seed in seeds]
        found = [crossing for crossing in crossings if crossing is not None]
        removed, interval, strength = None, None, None
        if len(found) == len(seeds):
            removed, interval = mean_and_interval([fraction for fraction, _ in found])
            strength = float(stats.gmean([ewc_lambda for _, ewc_lambda in found]))
        results.append(RemovedAt(method, coupling, increase, removed, interval, strength, len(seeds)))
    return results


def markdown_report(records: Iterable[RunRecord], title: str = _TITLE) -> str:
    """Two Markdown tables: every setting's means over its seeds, and `removed_at` at each of `INCREASES`.

    Raises:
        ValueError: As `removed_at`.
    """
    records = with_forgetting(records)
    columns = (  # heading, attribute, factor to the heading's unit, decimals
        ("dialog NLL", "dialog_nll", 1, 3),
        ("dialog perplexity", "dialog_perplexity", 1, 2),
        ("book NLL", "book_nll", 1, 3),
        ("book perplexity", "book_perplexity", 1, 2),
        ("forgetting (nats)", "forgetting", 1, 3),
        ("forgetting removed (%)", "forgetting_removed", 100, 1),
        ("seconds", "seconds", 1, 1),
        ("peak memory (MiB)", "peak_memory_bytes", 2**-20, 0),
    )
    settings = [["name", "method", "coupling", "lambda", "seeds", *(column[0] for column in columns)]]
    by_setting = _group(records, attrgetter("name", "method", "coupling", "ewc_lambda"))
    for (name, method, coupling, strength), runs in by_setting.items():
        row = [name, _NAMES.get(method, method), coupling or "-", f"{strength:g}", str(len(runs))]
        for _, attribute, factor, decimals in columns:
            values = [*map(attrgetter(attribute), runs)]
            row.append("-" if None in values else _cell(*mean_and_interval(np.multiply(values, factor)), decimals))
        settings.append(row)
    crossings = [["method", "coupling"]]
    crossings[0] += [text for x in INCREASES for text in (f"removed at +{x:.0%} (%)", f"lambda at +{x:.0%}")]
    for curve in zip(*(removed_at(records, increase) for increase in INCREASES), strict=True):
        row = [_NAMES.get(curve[0].method, curve[0].method), curve[0].coupling or "-"]
        for at in curve:
            half_width = None if at.interval is None else 100 * at.interval
            row.append("-" if at.forgetting_removed is None else _cell(100 * at.forgetting_removed, half_width, 1))
            row.append("-" if at.ewc_lambda is None else f"{float(f'{at.ewc_lambda:.3g}'):g}")
        crossings.append(row)
    interval = "With two seeds or more: mean ± half-width of its 95% t-interval over seeds."
    return f"""# {title}

{_table(settings)}

NLL and forgetting in nats per token; forgetting = rise of the book NLL over the pretrained model; forgetting removed
= 1 - forgetting / forgetting of plain fine-tuning with the same seed. {interval}

## removed_at

{_table(crossings)}

Forgetting removed where a method's curve over lambda reaches a dialog NLL so much above plain fine-tuning's, and the
lambda that gets there (geometric mean over seeds); `-` where a seed's curve does not. {interval}
"""


def write_report(records: Iterable[RunRecord], output_dir: str | Path, title: str = _TITLE) -> tuple[Path, Path, Path]:
    """Writes `report.json`, `report.md` and `report.png`, each by way of a temporary name; makes the folder.

    Returns:
        The three paths, in this order.

    Raises:
        ValueError: As `removed_at`; then nothing is written.
    """
    records, folder = with_forgetting(records), Path(output_dir)
    rows = [row for increase in INCREASES for row in removed_at(records, increase)]
    state = {"runs": [dataclasses.asdict(run) for run in records], "removed_at": [dataclasses.asdict(r) for r in rows]}
    contents = {
        "report.json": (json.dumps(state, indent=2) + "\n").encode(),
        "report.md": markdown_report(records, title).encode(),
        "report.png": _picture(records, title),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        temporary = folder / f".{name}.{os.getpid()}"
        try:
            temporary.write_bytes(content)
            os.replace(temporary, folder / name)
        finally:
            temporary.unlink(missing_ok=True)
    return folder / "report.json", folder / "report.md", folder / "report.png"


def read_records(path: str | Path) -> list[RunRecord]:
    """The records of a `report.json`.

    Raises:
        ValueError: If the file is not such a report.
    """
    try:
        return [RunRecord(**run) for run in json.loads(Path(path).read_bytes())["runs"]]
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"expected {path} to be a report.json of write_report, got {error!r}: write it again"
        ) from error


def _group(runs: Iterable[RunRecord], key: Callable[[RunRecord], Any]) -> dict[Any, list[RunRecord]]:
    groups: dict[Any, list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def _curves(records: Iterable[RunRecord]) -> dict[tuple[str, str | None], list[RunRecord]]:
    """(method, coupling) -> its runs, by rising lambda."""
    tuned = [run for run in records if run.name != PRETRAINED and run.method != PLAIN]
    curves = _group(tuned, attrgetter("method", "coupling"))
    return {curve: sorted(runs, key=attrgetter("ewc_lambda")) for curve, runs in curves.items()}


def _crossing(points: Sequence[RunRecord], increase: float) -> tuple[float, float] | None:
    """(forgetting removed, lambda) where one seed's curve, plain run first, first crosses the dialog NLL asked for."""
    target = (1 + increase) * points[0].dialog_nll
    for left, right in itertools.pairwise(points):
        if left.forgetting_removed is None or right.forgetting_removed is None:
            return None
        if left.dialog_nll < target <= right.dialog_nll:
            t = (target - left.dialog_nll) / (right.dialog_nll - left.dialog_nll)
            removed = (1 - t) * left.forgetting_removed + t * right.forgetting_removed
            if left.ewc_lambda > 0:
                return removed, left.ewc_lambda ** (1 - t) * right.ewc_lambda**t
            return removed, t * right.ewc_lambda
    return None


def _cell(mean: float, half_width: float | None, decimals: int) -> str:
    return f"{mean:.{decimals}f}" + ("" if half_width is None else f" ± {half_width:.{decimals}f}")


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows)


def _point(runs: Sequence[RunRecord]) -> tuple[float, float, float, float]:
    """(x, y, half-width in x, half-width in y) of a setting in the picture."""
    x, dx = mean_and_interval([run.dialog_perplexity for run in runs])
    y, dy = mean_and_interval([run.book_perplexity for run in runs])
    return x, y, dx or 0.0, dy or 0.0


def _picture(records: Sequence[RunRecord], title: str) -> bytes:
    """PNG of book over dialog perplexity: for each method and coupling a curve over lambda, from plain fine-tuning."""
    figure = Figure(figsize=(8, 5.5), dpi=150)
    axes = figure.add_axes((0.085, 0.105, 0.895, 0.82))
    axes.margins(0.06)
    start = next(run for run in records if run.name == PRETRAINED)
    plain = [run for run in records if run.method == PLAIN]
    origin = [_point(plain)] if plain else []
    for x, y, dx, dy in origin:
        axes.errorbar(x, y, dy, dx, "*", ms=18, c="#222222", mec="white", elinewidth=0.8, zorder=5)
        axes.annotate("plain fine-tuning", (x, y), (11, 4), textcoords="offset points", weight="bold", c="#222222")
    curves, labels = _curves(records), []
    colours = dict(zip(dict.fromkeys([*_NAMES, *(m for m, _ in curves)]), itertools.cycle(_PALETTE), strict=False))
    for (method, coupling), runs in curves.items():
        settings = _group(runs, attrgetter("ewc_lambda"))
        points = [_point(seeds) for seeds in settings.values()]
        labels += [(f"{at:g}", point[:2], colours[method]) for at, point in zip(settings, points, strict=True)]
        x, y, dx, dy = np.transpose([*origin, *points])
        name = _NAMES.get(method, method) + (f", {coupling}" if coupling else "")
        style: dict[str, Any] = {"ls": "--", "mfc": "white"} if coupling == "decoupled" else {"ls": "-"}
        axes.errorbar(x, y, dy, dx, c=colours[method], marker="o", ms=5, lw=1.7, elinewidth=0.8, label=name, **style)
    left, right = axes.get_xlim()
    far = axes.has_data() and start.dialog_perplexity > right + 0.25 * (right - left)
    if not far:
        axes.plot(start.dialog_perplexity, start.book_perplexity, "D", c="#666666", ms=7)
    note = f"pretrained: book {start.book_perplexity:.1f} at dialog {start.dialog_perplexity:.1f}{' →' if far else ''}"
    axes.set_xlim(axes.get_xlim())
    axes.hlines(start.book_perplexity, *axes.get_xlim(), colors="#666666", linestyles=(0, (6, 4)), lw=1.2, zorder=1)
    beside: dict[str, Any] = {
        "xycoords": axes.get_yaxis_transform(),
        "textcoords": "offset points",
        "ha": "right",
        "va": "top",
    }
    axes.annotate(note, (0.99, start.book_perplexity), (0, -5), size=9, c="#444444", **beside)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom - 0.04 * (top - bottom), top)
    axes.set_xlabel("dialog perplexity per token (the new task; lower is better)")
    axes.set_ylabel("book perplexity per token (the old text; lower is less forgotten)")
    axes.set_title(title, loc="left", weight="bold")
    axes.grid(c="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if labels:
        heading = "numbers: lambda\nbars: 95% t-interval over seeds"
        legend = axes.legend(title=heading, title_fontsize=8, fontsize=9, alignment="left", handlelength=2.8)
        figure.draw_without_rendering()
        _label_points(axes, labels, [artist.get_window_extent() for artist in (*axes.texts, legend)])
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _label_points(axes: Axes, labels: Iterable[tuple[str, tuple[float, float], str]], taken: list[BboxBase]) -> None:
    """Writes each (text, place, colour) beside its place, if some side is free of lines and of the taken boxes."""
    paths = [line.get_path() for line in axes.lines] + [path for bars in axes.collections for path in bars.get_paths()]
    ends = [np.asarray(path.vertices) for path in paths]
    ink = axes.transData.transform(np.concatenate([np.linspace(xy[:-1], xy[1:], 200).reshape(-1, 2) for xy in ends]))
    for text, place, colour in labels:
        for dx, dy in _SIDES:
            side: dict[str, Any] = {
                "ha": ("center", "left", "right")[dx],
                "va": ("center", "bottom", "top")[dy],
                "c": colour,
            }
            label = axes.annotate(text, place, (4 * dx, 4 * dy), textcoords="offset points", size=7.5, **side)
            box = label.get_window_extent()
            if not box.count_contains(ink) and not box.count_overlaps(taken):
                taken.append(box)
                break
            label.remove()

"""The forgetting study: fine-tune in several settings over several seeds, measure both texts, write the report."""

from __future__ import annotations

import dataclasses
import gc
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..config import EWCConfig
from ..data import require_within_context, sequence_length
from ..engines import peak_memory_bytes, require_one_process, reset_peak_memory
from ..penalty import Coupling
from ..rehearsal import Rehearsal
from ..storage import load_tokenizer
from .finished import FRACTIONS, FinishedRuns, Run
from .line import WeightLine, line_tensors
from .measuring import Measure
from .protocol import Measurement, StudyData, require_one_gpu, require_same_protocol, require_text_for_budgets
from .records import PRETRAINED, RunRecord, TextNames
from .report import study_title, write_report
from .settings import NO_PULL, Setting
from .shared import shared_importance, shared_rows
from .training import Memory, fine_tune, load_pretrained
from .ways import Way

_SECONDS_BETWEEN_REPORTS = 60


def run_study(
    model: str,
    data: StudyData,
    settings: Sequence[Setting],
    seeds: Sequence[int],
    training: EWCConfig,
    measurement: Measurement,
    shared: str | os.PathLike[str] | None = None,
    lora_rank: int | None = None,
    trust_remote_code: bool = False,
) -> list[RunRecord]:
    """Fine-tune the model in every setting with every seed, and write `report.json`, `.md`, `.html` and `.png`.

    The report is written after a run, once a minute at most, and in the end, also where that is an interrupt; it says
    which runs are missing. Runs that an earlier call finished in the same folder are not run again.

    Args:
        model: the pretrained checkpoint, a folder or Hub id.
        data: text like the pretraining text for the importance, a task to learn, and held-out documents of both.
        settings: what is compared, from `parse_settings`.
        seeds: each setting is run once with each; they set the order of the data and dropout.
        training: everything else about the training; `output_dir` is the study's folder.
        measurement: how importance and perplexity are measured, and rehearsal rows made.
        shared: folder where importances and rehearsal rows are kept, which studies may share: those that another study
            of the same model and text left there are not made again. By default `shared` in the study's folder.
        lora_rank: of adapters that every run trains in place of the weights, plain fine-tuning too; None trains these.
        trust_remote_code: run the code that the model brings along.

    Returns:
        The records, the pretrained model's first: one a run, and one a model between the pretrained one and a run's.

    Raises:
        ValueError: the folder holds a study with another protocol, a seed comes twice, the examples are longer than
            the model's context, there are several processes or GPUs, a setting needs `max_steps`, one has a rank
            of its own beside `lora_rank`, or a budget of forgetting without a text to keep it on.
    """
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"expected each seed once, got {list(seeds)}; leave the repeated ones out")
    require_one_process()
    require_one_gpu(training)
    require_text_for_budgets(training, settings, has_text=bool(data.budget_texts))
    if training.max_steps <= 0 and (needing := [setting.name for setting in settings if setting.counts_steps]):
        raise ValueError(
            f"expected max_steps > 0 for {', '.join(needing)}, got {training.max_steps}; the runs of a study take "
            "equally many steps, or as many as its setting says"
        )
    if lora_rank is not None and (lora_rank < 1 or any(setting.rank is not None for setting in settings)):
        raise ValueError(f"expected lora_rank >= 1, and no setting with a rank of its own, got {lora_rank}")
    pulled = [s.name for s in settings if s.overrides.get("ewc_coupling") == Coupling.DECOUPLED]
    if lora_rank is not None and pulled:
        raise ValueError(f"{NO_PULL}: leave {', '.join(pulled)} out")
    folder = Path(training.output_dir)
    load = partial(load_pretrained, model, training, trust_remote_code)
    pretrained = load()
    for examples in (data.retention_examples, data.task_examples):
        require_within_context(pretrained, sequence_length(examples[0]))
    require_same_protocol(folder, pretrained, data, training, measurement, lora_rank)
    measure = Measure(load_tokenizer(model, trust_remote_code), data, training, measurement)
    kept = folder / "shared" if shared is None else Path(shared)
    memories = {
        setting.name: _memory(setting, kept, pretrained, measure, load, progress=not training.disable_tqdm)
        for setting in settings
    }
    base = {name: tensor.detach().clone() for name, tensor in line_tensors(pretrained).items()}
    del pretrained
    finished = FinishedRuns(folder, settings, training)
    runs: list[Run] = [(Setting(PRETRAINED), None), *((setting, seed) for seed in seeds for setting in settings)]
    report, reported = partial(_report, finished, runs, data.names, lora_rank), time.monotonic()
    try:
        for setting, seed in tqdm(runs, desc="forgetting study", unit="run"):
            if (setting, seed) in finished:
                continue
            gc.collect()
            reset_peak_memory()
            start = time.perf_counter()
            tuned, seconds_a_step = load(), None
            if seed is not None:
                changes = {**setting.overrides, "seed": seed, "save_strategy": "no", "disable_tqdm": True}
                args = dataclasses.replace(training, **changes)
                way = setting if lora_rank is None else dataclasses.replace(setting, beside_rank=lora_rank)
                tuned, seconds_a_step = fine_tune(way, tuned, args, data.task_examples, memories[setting.name])
            first = measure(
                tuned,
                writes=seed in (None, seeds[0]),
                name=setting.name,
                method=PRETRAINED if seed is None else setting.family,
                label="" if setting.point is None else setting.point[2],
                needs_old_text=setting.needs_old_text,
                overrides=setting.told,
                seed=seed,
                seconds=time.perf_counter() - start,
                seconds_a_step=seconds_a_step,
                peak_memory_bytes=peak_memory_bytes(),
            )
            between = _between(setting, first, tuned, base, measure) if setting.interpolated else []
            finished.keep((setting, seed), [first, *between])
            if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
                report()
                reported = time.monotonic()
            tqdm.write(
                f"{first.name:24} seed {seed}: perplexity {first.task_perplexity:8.2f} on {data.names.task}, "
                f"{first.retention_perplexity:8.2f} on {data.names.retention}"
            )
    finally:
        if runs[0] in finished:
            records = report()
    return records


def _memory(
    setting: Setting, kept: Path, pretrained: PreTrainedModel, measure: Measure, load: partial[PreTrainedModel],
    progress: bool,
) -> Memory:  # fmt: skip
    """Return what a setting uses, made at this call where nobody made it before."""
    old_text, importance, rows = measure.data.retention_examples, None, None
    if setting.rehearses or setting.way is Way.SELF_REPLAY:
        old_answers = old_text if setting.way is Way.OLD_ANSWERS else None
        rows = _rows(setting, kept, pretrained, measure, progress, old_answers)
    if setting.method is not None:
        text = _rows(setting, kept, pretrained, measure, progress).blocks if setting.by_own_text else old_text
        num_examples = measure.measurement.num_examples
        importance = shared_importance(kept, setting.method, pretrained, text, num_examples, progress=progress)
    return Memory(importance, rows, old_text, load, measure.data.budget_texts, measure.tokenizer)


def _rows(
    setting: Setting, kept: Path, pretrained: PreTrainedModel, measure: Measure, progress: bool,
    old_text: Dataset | None = None,
) -> Rehearsal:  # fmt: skip
    """Return rows that the old model wrote, or old text with its answers, as the setting makes them."""
    measurement = dataclasses.replace(measure.measurement, **setting.rows)
    num_tokens = sequence_length(measure.data.task_examples[0])
    return shared_rows(kept, pretrained, measure.tokenizer, measurement, num_tokens, old_text, progress)


def _between(
    setting: Setting, trained: RunRecord, tuned: PreTrainedModel, base: dict[str, torch.Tensor], measure: Measure
) -> list[RunRecord]:
    """Measure models on the straight line from the pretrained to the trained weights."""
    line = WeightLine(tuned, base, {name: tensor.detach().clone() for name, tensor in line_tensors(tuned).items()})
    records = []
    for fraction in FRACTIONS:
        line.move_to(fraction)
        records.append(
            measure(
                tuned,
                name=f"{setting.name}-at-{fraction:g}",
                method=trained.method,
                label=f"{fraction:g}",
                needs_old_text=trained.needs_old_text,
                fraction=fraction,
                overrides=trained.overrides,
                seed=trained.seed,
                seconds=trained.seconds,
                seconds_a_step=trained.seconds_a_step,
                peak_memory_bytes=trained.peak_memory_bytes,
            )
        )
    return records


def _report(finished: FinishedRuns, runs: Sequence[Run], names: TextNames, lora_rank: int | None) -> list[RunRecord]:
    """Write the report of the runs that are finished, which says which are not, and return their records."""
    records, missing = finished.report(runs)
    write_report(records, finished.folder, names, study_title(lora_rank), missing)
    return records

"""The forgetting study: fine-tune in several settings over several seeds, measure both texts, write the report."""

from __future__ import annotations

import dataclasses
import gc
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    default_data_collator,
)

from ..config import EWCConfig
from ..data import require_within_context, sequence_length
from ..engines import peak_memory_bytes, reset_peak_memory
from ..evaluation import PerplexityResult, evaluate_perplexity
from ..storage import read_json, replaced, write_json
from ..trainer import EWCTrainer
from .importances import shared_importance
from .protocol import Measurement, StudyData, require_same_protocol
from .records import PLAIN, PRETRAINED, MissingRun, RunRecord, TextNames, with_forgetting
from .report import write_report
from .settings import Setting


def run_study(
    model: str,
    data: StudyData,
    settings: Sequence[Setting],
    seeds: Sequence[int],
    training: EWCConfig,
    measurement: Measurement,
    importances: str | os.PathLike[str] | None = None,
) -> list[RunRecord]:
    """Fine-tune the model in every setting with every seed, and write `report.json`, `.md`, `.png` and `.html`.

    The report is written after each run and says which ones are missing. Runs that an earlier call finished in the
    same folder are not run again.

    Args:
        model: the pretrained checkpoint, a folder or Hub id.
        data: text like the pretraining text for the importance, a task to learn, and held-out documents of both.
        settings: what is compared, from `parse_settings`.
        seeds: each setting is run once with each; they set the order of the data and dropout.
        training: everything else about the training; `output_dir` is the study's folder.
        measurement: how importance and perplexity are measured.
        importances: folder where importances are kept, which studies may share: one that another study of the same
            model and text left there is not estimated again. By default `importance` in the study's folder.

    Returns:
        One record a run, the pretrained model first.

    Raises:
        ValueError: the folder holds a study with another protocol, a seed comes twice, or the examples are longer than
            the model's context.
    """
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"expected each seed once, got {list(seeds)}; leave the repeated ones out")
    folder = Path(training.output_dir)
    tokenizer = AutoTokenizer.from_pretrained(model)
    pretrained = _load(model, training)
    for examples in (data.retention_examples, data.task_examples):
        require_within_context(pretrained, sequence_length(examples[0]))
    require_same_protocol(folder, pretrained, data, training, measurement)
    kept = folder / "importance" if importances is None else Path(importances)
    stored = {
        method: shared_importance(
            kept,
            method,
            pretrained,
            data.retention_examples,
            measurement.num_examples,
            progress=not training.disable_tqdm,
        )
        for method in dict.fromkeys(setting.method for setting in settings)
        if method is not None
    }
    del pretrained
    runs: list[tuple[Setting, int | None]] = [(Setting(PRETRAINED), None)]
    runs += [(setting, seed) for seed in seeds for setting in settings]
    for setting, seed in tqdm(runs, desc="forgetting study", unit="run"):
        path = _file(folder, setting, seed)
        if not path.is_file():
            consolidation = None if setting.method is None else stored[setting.method]
            record = _run(model, tokenizer, data, setting, seed, consolidation, training, measurement)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replaced(path) as temporary:
                write_json(temporary, record.measured())
            _report(folder, runs, data.names)
            tqdm.write(
                f"{record.name:24} seed {seed}: perplexity {record.task_perplexity:8.2f} on {data.names.task}, "
                f"{record.retention_perplexity:8.2f} on {data.names.retention}"
            )
    return _report(folder, runs, data.names)


def _file(folder: Path, setting: Setting, seed: int | None) -> Path:
    """Return where the record of a finished run is kept."""
    return folder / "runs" / f"{setting.name}{'' if seed is None else f'-seed{seed}'}.json"


def _report(folder: Path, runs: Sequence[tuple[Setting, int | None]], names: TextNames) -> list[RunRecord]:
    """Write the report of the runs that are finished, which says which are not, and return their records."""
    finished = [run for run in runs if _file(folder, *run).is_file()]
    missing = [MissingRun(setting.name, seed) for setting, seed in runs if (setting, seed) not in finished]
    records = with_forgetting(RunRecord(**read_json(_file(folder, *run))) for run in finished)
    write_report(records, folder, names, missing=missing)
    return records


def _run(
    model: str,
    tokenizer: PreTrainedTokenizerBase,
    data: StudyData,
    setting: Setting,
    seed: int | None,
    consolidation: Path | None,
    training: EWCConfig,
    measurement: Measurement,
) -> RunRecord:
    """Fine-tune once (not at all where there is no seed) and measure."""
    gc.collect()
    reset_peak_memory()
    start = time.perf_counter()
    tuned = _load(model, training)
    if seed is not None:
        args = dataclasses.replace(
            training,
            **{**setting.overrides, "seed": seed, "save_strategy": "no", "disable_tqdm": True},
        )
        EWCTrainer(
            model=tuned,
            args=args,
            consolidation=consolidation,
            train_dataset=data.task_examples,
            data_collator=default_data_collator,
        ).train()
    seconds, peak = time.perf_counter() - start, peak_memory_bytes()
    task = _perplexity(tuned, tokenizer, data.task_texts, training, measurement)
    retention = _perplexity(tuned, tokenizer, data.retention_texts, training, measurement)
    return RunRecord(
        name=setting.name,
        method=(PRETRAINED if seed is None else PLAIN) if setting.method is None else setting.method.value,
        curves=_curves(setting),
        label=f"{setting.overrides['ewc_lambda']:g}" if "ewc_lambda" in setting.overrides else "",
        overrides=dict(setting.overrides),
        seed=seed,
        task_nll=task.nll,
        task_perplexity=task.perplexity,
        retention_nll=retention.nll,
        retention_perplexity=retention.perplexity,
        seconds=seconds,
        peak_memory_bytes=peak,
        task_documents=_scores(task),
        retention_documents=_scores(retention),
    )


def _curves(setting: Setting) -> dict[str, float]:
    """Return the curve over lambda that a penalty's setting is a point of, titled by whatever else it changes."""
    others = {key: value for key, value in setting.overrides.items() if key != "ewc_lambda"}
    if setting.method is None or len(others) == len(setting.overrides):
        return {}
    coupling = [others.pop("ewc_coupling")] if "ewc_coupling" in others else []
    title = ", ".join([setting.method.title, *coupling, *(f"{key}={value}" for key, value in others.items())])
    return {title: setting.overrides["ewc_lambda"]}


def _load(model: str, training: EWCConfig) -> PreTrainedModel:
    """Load a checkpoint in float32, in which small pulls do not round away; `bf16=True` still computes in bfloat16."""
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(training.device)


def _perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    training: EWCConfig,
    measurement: Measurement,
) -> PerplexityResult:
    return evaluate_perplexity(
        model,
        tokenizer,
        texts,
        measurement.stride,
        window=measurement.window,
        max_document_tokens=measurement.max_document_tokens,
        batch_size=training.per_device_eval_batch_size,
        progress=False,
    )


def _scores(result: PerplexityResult) -> list[list[float]]:
    return [[document.nll_sum, document.num_tokens] for document in result.documents]

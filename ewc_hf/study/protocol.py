"""What all runs of a study have in common: its data, how it measures, and a record that keeps studies apart."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel

from ..config import EWCConfig
from ..engines import trainable_parameters
from ..storage import fingerprint, read_json, replaced, write_json
from ..version import versions
from .records import TextNames
from .settings import MAX_FORGETTING, Setting

SET_BY_THE_STUDY = frozenset({"output_dir", "seed", "save_strategy", "disable_tqdm"})
"""Arguments that the study gives to each run itself."""
_CANNOT_MATTER = SET_BY_THE_STUDY | {
    "logging_strategy", "logging_steps", "logging_first_step",
    "log_level", "log_level_replica", "log_on_each_node", "report_to", "run_name", "project", "hub_token",
}  # fmt: skip
"""Arguments that only tell what is shown, besides; any other is part of the protocol."""
_NOT_THE_MODEL = ("_name_or_path", "transformers_version")
"""What a configuration says besides: where it was read, and by which version it was written."""
_OF_BUDGETS = "budget_texts"
"""What only some of the runs depend on: it may come with the first of them."""


@dataclass(frozen=True)
class StudyData:
    """What a study reads; examples are packed blocks of tokens, texts are held-out documents.

    Attributes:
        retention_examples: like the pretraining text, for the importance and for what trains with old text.
        task_examples: what is learned.
        retention_texts: held out.
        task_texts: held out.
        names: what the report calls the two texts.
        budget_texts: other ones like the retention texts, on which runs with `max_forgetting` keep it.
    """

    retention_examples: Dataset
    task_examples: Dataset
    retention_texts: list[str]
    task_texts: list[str]
    names: TextNames = field(default_factory=TextNames)
    budget_texts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Measurement:
    """How importance is estimated, rehearsal rows are made and perplexity is measured, in all runs of a study."""

    num_examples: int = field(
        default=256, metadata={"help": "Blocks of pretraining text that importance is estimated on."}
    )
    rehearsal_num_rows: int = field(default=2048, metadata={"help": "Rehearsal rows that the old model writes."})
    rehearsal_tokens: int | None = field(
        default=None, metadata={"help": "Tokens a row; default as the task's blocks."}
    )
    rehearsal_temperature: float = field(default=1.0, metadata={"help": "At which the rows are drawn."})
    rehearsal_top_k: int = field(default=32, metadata={"help": "Answers that are stored at each position."})
    window: int | None = field(
        default=None, metadata={"help": "Tokens that the model sees at most; default its context, at most 1024."}
    )
    stride: int | None = field(default=None, metadata={"help": "Tokens that the window moves by; default half of it."})
    max_document_tokens: int | None = field(
        default=None, metadata={"help": "Cut held-out documents after so many tokens."}
    )


def require_one_gpu(training: EWCConfig) -> None:
    """Check that the process of a study has one device, over which no batch is spread.

    Raises:
        ValueError: it has several GPUs.
    """
    if training.n_gpu > 1:
        raise ValueError(
            f"expected one GPU, got {training.n_gpu}; set CUDA_VISIBLE_DEVICES=0, or another, in the environment"
        )


def require_text_for_budgets(training: EWCConfig, settings: Sequence[Setting], has_text: bool) -> None:
    """Check that runs with a budget of forgetting have text to keep it on, since what a study measures on is held out.

    Raises:
        ValueError: there is none, or each run has a budget, plain fine-tuning too.
    """
    if training.max_forgetting is not None:
        raise ValueError(
            f"expected no max_forgetting for all runs, plain fine-tuning too, got {training.max_forgetting:g}; name "
            f"it in a study's settings: `fisher:decoupled:30:max_forgetting={training.max_forgetting:g}`"
        )
    if not has_text and any(MAX_FORGETTING in setting.overrides for setting in settings):
        raise ValueError(
            "expected budget_text for settings with max_forgetting, got none; name held-out old text that is not "
            "retention_test, or compare the models between old and tuned weights (`:interpolated`)"
        )


def require_same_protocol(
    folder: Path,
    model: PreTrainedModel,
    data: StudyData,
    training: EWCConfig,
    measurement: Measurement,
    lora_rank: int | None = None,
) -> None:
    """Keep runs of different protocols out of one report, by `protocol.json` in the study's folder.

    Raises:
        ValueError: the folder holds a study of another model, data, training or measurement.
    """
    protocol: dict[str, Any] = {
        "model": [fingerprint(trainable_parameters(model)), configuration_of(model)],
        "software": versions(),
        "data": [content_hash(data.retention_examples), content_hash(data.task_examples)],
        "texts": _hash_of(data.retention_texts + data.task_texts),
        "training": arguments_that_matter(training),
        "measurement": dataclasses.asdict(measurement),
    }
    if lora_rank is not None:
        protocol["lora_rank"] = lora_rank
    if data.budget_texts:
        protocol[_OF_BUDGETS] = _hash_of(data.budget_texts)
    keep_protocol(folder, protocol)


def arguments_that_matter(training: EWCConfig) -> dict[str, Any]:
    """Return the arguments of a training that can change a number, as JSON has them."""
    return _as_json({key: value for key, value in training.to_dict().items() if key not in _CANNOT_MATTER})


def configuration_of(model: PreTrainedModel) -> dict[str, Any]:
    """Return a model's configuration, but for where it was read, as JSON has it."""
    return _as_json({key: value for key, value in model.config.to_dict().items() if key not in _NOT_THE_MODEL})


def _as_json(content: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return read


def keep_protocol(folder: Path, protocol: dict[str, Any]) -> None:
    """Write what all runs in a folder have in common, `protocol.json`, or check that it is what stands there.

    Raises:
        ValueError: the folder holds runs of another protocol.
    """
    path = folder / "protocol.json"
    stored = read_json(path) if path.is_file() else protocol
    if _OF_BUDGETS not in stored or _OF_BUDGETS not in protocol:
        known = {key: value for key, value in (stored | protocol).items() if key == _OF_BUDGETS}
        stored, protocol = stored | known, protocol | known
    if stored != protocol:
        different = sorted(key for key in stored.keys() | protocol.keys() if stored.get(key) != protocol.get(key))
        arguments = _different_arguments(stored.get("training", {}), protocol.get("training", {}))
        raise ValueError(
            f"expected the protocol of the study that '{folder}' holds, got another {' and '.join(different)}; "
            "choose another output_dir" + (f", or set {arguments} as they were" if arguments else "")
        )
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(path) as temporary:
        write_json(temporary, protocol)


def _different_arguments(stored: dict[str, Any], given: dict[str, Any]) -> str:
    return ", ".join(sorted(key for key in stored.keys() | given.keys() if stored.get(key) != given.get(key)))


def _hash_of(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def content_hash(dataset: Dataset) -> str:
    """Return the SHA-256 of a dataset's rows, wherever they came from."""
    digest = hashlib.sha256()
    for rows in dataset.iter(batch_size=1000):
        digest.update(json.dumps(rows).encode())
    return digest.hexdigest()

"""What all runs of a study have in common: its data, how it measures, and a record that keeps studies apart."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel

from ..config import EWCConfig
from ..engines import trainable_parameters
from ..storage import fingerprint, read_json, replaced, write_json

_PROTOCOL = (
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "label_smoothing_factor",
    "neftune_noise_alpha",
    "data_seed",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "bf16",
    "fp16",
    "ewc_stabilized",
    "ewc_alpha",
    "ewc_state_dtype",
)


@dataclass(frozen=True)
class StudyData:
    """What a study reads; examples are packed blocks of tokens, texts are held-out documents."""

    retention_examples: Dataset
    task_examples: Dataset
    retention_texts: list[str]
    task_texts: list[str]


@dataclass(frozen=True)
class Measurement:
    """How importance is estimated and perplexity measured, alike for all runs of a study."""

    num_examples: int = field(
        default=256, metadata={"help": "Blocks of pretraining text that importance is estimated on."}
    )
    window: int | None = field(
        default=None, metadata={"help": "Tokens that the model sees at most; default its context."}
    )
    stride: int | None = field(default=None, metadata={"help": "Tokens that the window moves by; default half of it."})
    max_document_tokens: int | None = field(
        default=None, metadata={"help": "Cut held-out documents after so many tokens."}
    )


def require_same_protocol(
    folder: Path, model: PreTrainedModel, data: StudyData, training: EWCConfig, measurement: Measurement
) -> None:
    """Keep runs of different protocols out of one report, by `protocol.json` in the study's folder.

    Raises:
        ValueError: the folder holds a study of another model, data, training or measurement.
    """
    protocol = {
        "model": fingerprint(trainable_parameters(model)),
        "data": [_content_hash(data.retention_examples), _content_hash(data.task_examples)],
        "texts": hashlib.sha256("\n".join(data.retention_texts + data.task_texts).encode()).hexdigest(),
        "training": {name: value for name, value in training.to_dict().items() if name in _PROTOCOL},
        "measurement": dataclasses.asdict(measurement),
    }
    path = folder / "protocol.json"
    if path.is_file() and (stored := read_json(path)) != protocol:
        different = sorted(key for key in protocol if stored.get(key) != protocol[key])
        raise ValueError(
            f"expected the protocol of the study that '{folder}' holds, got another {' and '.join(different)}; "
            "choose another output_dir"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(path) as temporary:
        write_json(temporary, protocol)


def _content_hash(dataset: Dataset) -> str:
    """Return the SHA-256 of a dataset's rows, wherever they came from."""
    digest = hashlib.sha256()
    for rows in dataset.iter(batch_size=1000):
        digest.update(json.dumps(rows).encode())
    return digest.hexdigest()

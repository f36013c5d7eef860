"""Importances and rehearsal rows that studies of one model and text share, each in a folder named by its causes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..consolidation import CONFIG_NAME
from ..importance import Method, estimate_importance, l2_to_start
from ..rehearsal import REHEARSAL_CONFIG, Rehearsal, answer_rehearsal, generate_rehearsal
from ..storage import fingerprint
from ..version import versions
from .protocol import Measurement, configuration_of, content_hash


def shared_importance(
    folder: Path, method: Method, model: PreTrainedModel, examples: Dataset, num_examples: int, progress: bool
) -> Path:
    """Return where an importance is stored, estimated at this call unless the folder holds it already.

    Its own folder is named by the method and a hash of the model's weights and configuration, the examples, how many
    are sampled, and the versions of the libraries: another estimate has another name.

    Args:
        folder: of all importances; made where it is missing.
        method: the estimator.
        model: the pretrained model.
        examples: blocks of text like the pretraining text.
        num_examples: how many of them are sampled.
        progress: show a progress bar.
    """
    stored = folder / _name(method.value, model, examples=content_hash(examples), num_examples=num_examples)
    if not (stored / CONFIG_NAME).is_file():
        if method is Method.L2:
            estimated = l2_to_start(model)
        else:
            estimated = estimate_importance(model, examples, method, num_examples=num_examples, progress=progress)
        estimated.save_pretrained(stored)
    return stored


def shared_rows(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    measurement: Measurement,
    num_tokens: int,
    old_text: Dataset | None,
    progress: bool,
) -> Rehearsal:
    """Return rehearsal rows, made at this call, or further from where an interrupted one got, unless they are stored.

    Args:
        folder: of all rows; made where it is missing.
        model: the pretrained model.
        tokenizer: its tokenizer.
        measurement: how they are made.
        num_tokens: tokens a row where `measurement` does not say.
        old_text: blocks that are answered in place of what the model writes; None is none.
        progress: show a progress bar.
    """
    top_k, num_rows = measurement.rehearsal_top_k, measurement.rehearsal_num_rows
    causes: dict[str, Any] = {"top_k": top_k, "num_rows": num_rows}
    if old_text is None:
        causes["num_tokens"] = measurement.rehearsal_tokens or num_tokens
        causes["temperature"] = measurement.rehearsal_temperature
        name = _name("rows", model, **causes)
    else:
        name = _name("old_text", model, text=content_hash(old_text), **causes)
    stored = folder / name
    if not (stored / REHEARSAL_CONFIG).is_file():
        common: dict[str, Any] = {"progress": progress, "resume_folder": stored / "unfinished"}
        if old_text is None:
            rows = generate_rehearsal(model, tokenizer, **causes, **common)
        else:
            blocks = old_text.shuffle(seed=0).select(range(min(num_rows, len(old_text))))
            rows = answer_rehearsal(model, blocks, tokenizer, top_k, **common)
        rows.save_pretrained(stored)
    return Rehearsal.from_pretrained(stored)


def _name(kind: str, model: PreTrainedModel, **causes: Any) -> str:
    weights = fingerprint(model.state_dict())
    causes |= {"weights": weights, "config": configuration_of(model), "versions": versions()}
    key = hashlib.sha256(json.dumps(causes, sort_keys=True, default=str).encode()).hexdigest()
    return f"{kind}-{key[:16]}"

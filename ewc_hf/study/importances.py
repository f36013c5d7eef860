"""Importances that studies of the same model and text share, each in a folder named by all that it depends on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel

from ..consolidation import CONFIG_NAME
from ..importance import Method, estimate_importance, l2_to_start
from ..storage import fingerprint
from ..version import versions
from .protocol import content_hash

_NOT_THE_MODEL = ("_name_or_path", "transformers_version")
"""What a configuration says besides: where it was read, and by which version it was written."""


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
    config = {key: value for key, value in model.config.to_dict().items() if key not in _NOT_THE_MODEL}
    depends_on = {
        "weights": fingerprint(model.state_dict()),
        "config": config,
        "examples": content_hash(examples),
        "num_examples": num_examples,
        "versions": versions(),
    }
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True, default=str).encode()).hexdigest()
    stored = folder / f"{method.value}-{key[:16]}"
    if not (stored / CONFIG_NAME).is_file():
        if method is Method.L2:
            estimated = l2_to_start(model)
        else:
            estimated = estimate_importance(model, examples, method, num_examples=num_examples, progress=progress)
        estimated.save_pretrained(stored)
    return stored

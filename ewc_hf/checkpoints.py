"""Checkpoints of a training run that may have been killed while it saved one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from .files import read_json
from .processes import process_index

logger = logging.get_logger(__name__)
_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")


def last_complete_checkpoint(folder: Path, also: Sequence[str] = ()) -> str | None:
    """Find the checkpoint of the highest step that can be resumed from; a warning names later ones, half-written.

    `Trainer` writes `trainer_state.json` last and in place, so a checkpoint is complete when that file is whole JSON.
    Nothing but the folder is read: every process of a run that shares it finds the same.

    Args:
        folder: the run's output folder.
        also: names of files that a complete checkpoint has to hold besides.

    Returns:
        The checkpoint's path, or None where no checkpoint is complete.
    """
    skipped: list[str] = []
    found = None
    for checkpoint in _latest_first(folder):
        if _is_saved(checkpoint) and all((checkpoint / name).is_file() for name in also):
            found = str(checkpoint)
            break
        skipped.append(checkpoint.name)
    if skipped and process_index() == 0:
        logger.warning(f"Skipped checkpoints in '{folder}' that are not complete: {', '.join(skipped)}")
    return found


def remove_half_written(folder: Path, later_than: str) -> None:
    """Remove checkpoints of later steps than `later_than` that were not saved to their end.

    `Trainer` overwrites one when it reaches that step again. Until then, where the file system keeps no modification
    times, `save_total_limit` takes the highest step for the latest save: it would keep the half-written checkpoint
    and remove a complete one of a step before it, which may be the only one.
    """
    for checkpoint in _latest_first(folder):
        if _step(checkpoint) > _step(Path(later_than)) and not _is_saved(checkpoint):
            logger.warning(f"Removing '{checkpoint}', which was not saved to its end")
            shutil.rmtree(checkpoint, ignore_errors=True)


def _latest_first(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    checkpoints = (path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())
    return sorted(checkpoints, key=_step, reverse=True)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _is_saved(checkpoint: Path) -> bool:
    try:
        read_json(checkpoint / TRAINER_STATE_NAME)
    except (ValueError, FileNotFoundError):  # the latter when the main process removes it at this moment
        return False
    return True

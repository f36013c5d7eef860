"""Going on from a run's last complete checkpoint, also where the run was killed while it saved one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput, get_last_checkpoint
from transformers.utils import logging

from .engines import agreed, process_index, require_same
from .importance import SynapticIntelligence
from .storage import read_json

if TYPE_CHECKING:
    from transformers import Trainer as _SomeTrainer
else:
    _SomeTrainer = object

logger = logging.get_logger(__name__)
_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")


class ResumingMixin(_SomeTrainer):
    """Makes the checkpoints of a `Trainer` class that comes after it complete or not there.

    It overrides:
        `train`, since `resume_from_checkpoint=True` has to pass over a checkpoint that was being saved at a kill;
        `_save_checkpoint` and `_save_rng_state`, so that a checkpoint is complete no sooner than all of it is there.
    """

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train as usual; `resume_from_checkpoint=True` goes on from the last checkpoint that is complete.

        Without state of ours in the checkpoints it is the trainer class's own.

        Raises:
            ValueError: no checkpoint in `output_dir` is complete.
        """
        if resume_from_checkpoint is True and self._has_state_of_its_own():
            folder = Path(self.args.output_dir)
            resume_from_checkpoint = last = agreed(partial(self._last_complete_checkpoint, folder))
            require_same(Path(last).name, "last complete checkpoint")
            agreed(partial(self._remove_half_written, folder, last))
        elif resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir) or True
        found = Path(resume_from_checkpoint) if isinstance(resume_from_checkpoint, str | os.PathLike) else None
        if found is not None:
            agreed(partial(self._require_resumable, found))
        for synaptic in self._synaptics():
            synaptic.checkpoint = found
        given = {"trial": trial, "ignore_keys_for_eval": ignore_keys_for_eval}
        return super().train(
            resume_from_checkpoint, **{key: value for key, value in given.items() if value is not None}
        )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save as usual, after the sums of Synaptic Intelligence; an older checkpoint there is complete no more."""
        checkpoint = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"

        def declare_incomplete() -> None:
            if self.args.should_save:
                (checkpoint / TRAINER_STATE_NAME).unlink(missing_ok=True)

        agreed(declare_incomplete)
        if not self.args.save_only_model:
            for synaptic in self._synaptics():
                synaptic.save(checkpoint, self.state.global_step)
        super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        """Save as usual, and wait: the first process is about to declare the checkpoint complete."""
        agreed(partial(super()._save_rng_state, output_dir))

    def _last_complete_checkpoint(self, folder: Path) -> str:
        also = [SynapticIntelligence.state_name] if self._synaptics() else []
        found = last_complete_checkpoint(folder, also)
        if found is None:
            raise ValueError(
                f"No valid checkpoint found in output directory ({folder}): expected a complete checkpoint in "
                f"'{folder}', got none; leave out `resume_from_checkpoint`"
            )
        return found

    def _remove_half_written(self, folder: Path, later_than: str) -> None:
        if self.args.should_save and (self.args.save_total_limit or 0) > 0:
            remove_half_written(folder, later_than)

    def _require_resumable(self, checkpoint: Path) -> None:
        """Check, before anything is loaded, that the run may go on from a checkpoint."""

    def _record(self, kind: type[ExportableState], **attributes: Any) -> None:
        """Let each checkpoint of this run tell what holds it; restoring callbacks may have replaced ours."""
        records = [callback for callback in self.callback_handler.callbacks if isinstance(callback, kind)]
        if not records:
            records = [kind()]
            self.add_callback(records[0])
        vars(records[0]).update(attributes)
        self.state.stateful_callbacks[kind.__name__] = records[0].state()

    def _forget(self, kind: type[ExportableState]) -> None:
        """Let no checkpoint from here on tell of it."""
        self.remove_callback(kind)
        self.state.stateful_callbacks.pop(kind.__name__, None)

    def _has_state_of_its_own(self) -> bool:
        """Tell whether a checkpoint has to hold more than the trainer class puts there."""
        return bool(self._synaptics()) or getattr(self.args, "max_forgetting", None) is not None

    def _synaptics(self) -> list[SynapticIntelligence]:
        """Return the callbacks that accrue Synaptic Intelligence, the trainer's own and any given to it."""
        return [callback for callback in self.callback_handler.callbacks if isinstance(callback, SynapticIntelligence)]


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


def states_in(checkpoint: Path) -> dict[str, Any]:
    """Return the states of callbacks that a checkpoint holds; none where it is not saved to its end."""
    return read_json(checkpoint / TRAINER_STATE_NAME).get("stateful_callbacks", {}) if _is_saved(checkpoint) else {}


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

"""The finished runs of a study, a file each, from which the report is written anew whatever settings stand in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import EWCConfig
from ..storage import read_json, replaced, write_json
from .records import PRETRAINED, MissingRun, RunRecord, with_forgetting
from .settings import Setting, curves_through

FRACTIONS = (0.9, 0.8, 0.7, 0.6, 0.5)
"""Of the way from the pretrained to the trained weights, where models are measured."""
Run = tuple[Setting, int | None]
"""A setting and a seed; the pretrained model has none."""


@dataclass(frozen=True)
class FinishedRuns:
    """What earlier calls measured in a study's folder, and this one.

    Attributes:
        folder: the study's.
        settings: that are compared now; more may have been run.
        training: what they change.
    """

    folder: Path
    settings: Sequence[Setting]
    training: EWCConfig

    def __contains__(self, run: Run) -> bool:
        """Tell whether a run is finished, the models between included where the setting wants them."""
        if not self._path(run).is_file():
            return False
        return {record.fraction for record in self._records(run)} >= {1.0, *(FRACTIONS if run[0].interpolated else ())}

    def keep(self, run: Run, records: Sequence[RunRecord]) -> None:
        """Keep what a run measured of the trained model and of those between."""
        path = self._path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            write_json(temporary, [record.measured() for record in records])

    def report(self, runs: Sequence[Run]) -> tuple[list[RunRecord], list[MissingRun]]:
        """Return the records of those runs that are finished, as they look beside each other, and the other runs."""
        finished = [run for run in runs if run in self]
        missing = [MissingRun(setting.name, seed) for setting, seed in runs if (setting, seed) not in finished]
        return with_forgetting(record for run in finished for record in self._records(run)), missing

    def _records(self, run: Run) -> list[RunRecord]:
        """Return what is kept of a run, on the curves of today's settings.

        Raises:
            ValueError: another version kept it.
        """
        (setting, _), path = run, self._path(run)
        try:
            records = [RunRecord(**{**kept, "curves": {}}) for kept in read_json(path)]
        except TypeError as error:
            raise ValueError(
                f"expected records that this version wrote in '{path}', got others ({error}); choose another "
                "output_dir"
            ) from error
        if setting.name == PRETRAINED:
            return records
        return [
            replace(record, curves=curves_through(setting, self.settings, self.training, record.fraction))
            for record in records
            if record.fraction == 1 or setting.interpolated
        ]

    def _path(self, run: Run) -> Path:
        setting, seed = run
        return self.folder / "runs" / f"{setting.name}{'' if seed is None else f'-seed{seed}'}.json"

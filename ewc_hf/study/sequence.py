"""Several tasks in a row: a model learns one after another, and after each all texts are measured.

After each task what it knows is remembered anew: importances add up, and rehearsal rows are joined within a bound.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..config import EWCConfig
from ..consolidation import Consolidation
from ..data import sequence_length
from ..engines import require_one_process
from ..importance import Method, estimate_importance
from ..rehearsal import Rehearsal, generate_rehearsal
from ..storage import fingerprint, load_tokenizer, read_json, replaced, write_json
from ..version import versions
from .measuring import measured
from .protocol import (
    Measurement,
    arguments_that_matter,
    configuration_of,
    content_hash,
    keep_protocol,
    require_one_gpu,
)
from .settings import MAX_FORGETTING, Setting
from .training import Memory, fine_tune, load_pretrained
from .ways import Way

_Made = TypeVar("_Made")


@dataclasses.dataclass(frozen=True)
class SequenceTask:
    """What is learned in one step of a sequence, and what tells how well it is known; the old text comes first.

    Attributes:
        name: in tables and pictures.
        examples: packed blocks of tokens.
        texts: held-out documents.
    """

    name: str
    examples: Dataset
    texts: list[str]


@dataclasses.dataclass(frozen=True)
class SequenceRun:
    """What one setting with one seed knew of each text after each task.

    Attributes:
        setting: its name.
        seed: of the order of the examples, and of dropout.
        nll: nats per token, [tasks, tasks]: after the row's task, of the column's text. The first row is before any
            training, when the model knows the old text.
    """

    setting: str
    seed: int
    nll: list[list[float]]


def run_sequence(
    model: str,
    tasks: Sequence[SequenceTask],
    settings: Sequence[Setting],
    seeds: Sequence[int],
    training: EWCConfig,
    measurement: Measurement,
    decay: float = 1.0,
    trust_remote_code: bool = False,
) -> list[SequenceRun]:
    """Let a model learn tasks one after another, in every setting with every seed.

    Runs that an earlier call finished in the same folder are not run again.

    Args:
        model: the pretrained checkpoint, a folder or Hub id.
        tasks: the first is the text of the pretraining, the others are learned in this order.
        settings: what is compared, from `parse_settings`: plain, penalties, self-rehearsal, or both.
        seeds: each setting is run once with each.
        training: of each task; `output_dir` is the sequence's folder.
        measurement: how importance and perplexity are measured, and how many rehearsal rows there are in all.
        decay: how much of the older importance is kept after each task (online EWC).
        trust_remote_code: run the code that the model brings along.

    Raises:
        ValueError: fewer than two tasks, two of one name, a seed twice, settings of another kind or with a budget of
            forgetting, several processes or GPUs, or a folder that holds a sequence of another protocol.
    """
    _require_sequence(tasks, settings, seeds, training)
    require_one_gpu(training)
    require_one_process()
    folder = Path(training.output_dir)
    sequence = _Sequence(model, tasks, training, measurement, decay, trust_remote_code)
    keep_protocol(folder, sequence.protocol())
    runs = []
    for setting, seed in tqdm([(s, seed) for seed in seeds for s in settings], desc="tasks in a row", unit="run"):
        path = folder / "runs" / f"{setting.name}-seed{seed}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            nll = sequence.learn(setting, seed)
            with replaced(path) as temporary:
                write_json(temporary, dataclasses.asdict(SequenceRun(setting.name, seed, nll)))
        runs.append(SequenceRun(**read_json(path)))
    return runs


def _require_sequence(
    tasks: Sequence[SequenceTask], settings: Sequence[Setting], seeds: Sequence[int], training: EWCConfig
) -> None:
    names = [task.name for task in tasks]
    if len(names) < 2 or len(set(names)) < len(names) or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"expected the old text and tasks of different names, and each seed once, got {names} and {list(seeds)}; "
            "name the tasks (`tasks_names`)"
        )
    if training.max_forgetting is not None or any(MAX_FORGETTING in setting.overrides for setting in settings):
        raise ValueError(
            "expected no max_forgetting of tasks in a row, whose texts are held out from training, got one; leave it "
            "out"
        )
    for setting in settings:
        known = setting.way in (Way.PLAIN, Way.PENALTY, Way.REHEARSAL) and setting.method is not Method.L2
        if not known or setting.by_own_text or setting.interpolated:
            raise ValueError(
                "expected settings that are plain, a penalty whose importance is estimated on each task's text, "
                f"self-rehearsal, or both, none of them interpolated, got '{setting.name}'; leave it out"
            )


class _Sequence:
    """What all runs have in common."""

    def __init__(
        self,
        model: str,
        tasks: Sequence[SequenceTask],
        training: EWCConfig,
        measurement: Measurement,
        decay: float,
        trust_remote_code: bool,
    ) -> None:
        self._load = partial(load_pretrained, model, training, trust_remote_code)
        self._tokenizer: PreTrainedTokenizerBase = load_tokenizer(model, trust_remote_code)
        self._tasks, self._training, self._measurement, self._decay = tasks, training, measurement, decay
        self._of_pretrained: dict[str, Any] = {}

    def protocol(self) -> dict[str, Any]:
        """Return what keeps runs of different sequences apart."""
        model = self._load()
        return {
            "model": [fingerprint(dict(model.named_parameters())), configuration_of(model)],
            "software": versions(),
            "tasks": [[task.name, content_hash(task.examples), task.texts] for task in self._tasks],
            "training": arguments_that_matter(self._training),
            "measurement": dataclasses.asdict(self._measurement),
            "decay": self._decay,
        }

    def learn(self, setting: Setting, seed: int) -> list[list[float]]:
        """Return the NLL of each text before the first task and after each."""
        model, known, rows = self._load(), None, None
        nll = [self._measure(model)]
        for before, task in zip(self._tasks, self._tasks[1:], strict=False):
            if setting.method is not None:
                known = self._consolidated(setting.method, model, before, known)
            if setting.rehearses:
                rows = self._written(setting, model, task, rows, seed)
            changes = {**setting.overrides, "seed": seed, "save_strategy": "no", "disable_tqdm": True}
            args = dataclasses.replace(self._training, **changes)
            model, _ = fine_tune(setting, model, args, task.examples, Memory(known, rows, before.examples, self._load))
            gc.collect()
            nll.append(self._measure(model))
        return nll

    def _consolidated(
        self, method: Method, model: PreTrainedModel, task: SequenceTask, known: Consolidation | None
    ) -> Consolidation:
        """Return what was known and what is now known of the task before, anchored where the model is."""

        def estimated() -> Consolidation:
            number = self._measurement.num_examples
            new = estimate_importance(model, task.examples, method, num_examples=number, progress=False)
            new.own_anchor()
            return new

        return self._once(method, estimated) if known is None else known.merge(estimated(), self._decay)

    def _written(
        self, setting: Setting, model: PreTrainedModel, task: SequenceTask, rows: Rehearsal | None, seed: int
    ) -> Rehearsal:
        """Return rows of the model as it was before each task and is now, equally many of each."""
        how = dataclasses.replace(self._measurement, **setting.rows)
        total, num_tasks = how.rehearsal_num_rows, 1 if rows is None else 1 + rows.num_tasks

        def written() -> Rehearsal:
            return generate_rehearsal(
                model,
                self._tokenizer,
                total // num_tasks,
                how.rehearsal_tokens or sequence_length(task.examples[0]),
                top_k=how.rehearsal_top_k,
                temperature=how.rehearsal_temperature,
                progress=False,
            )

        return self._once(str(how), written) if rows is None else rows.merge(written(), total, seed)

    def _once(self, what: str, make: Callable[[], _Made]) -> _Made:
        """Return what all runs remember of the pretrained model, made by the first of them."""
        if what not in self._of_pretrained:
            self._of_pretrained[what] = make()
        made: _Made = self._of_pretrained[what]
        return made

    def _measure(self, model: PreTrainedModel) -> list[float]:
        """Return the NLL of each text."""
        texts = [task.texts for task in self._tasks]
        return [measured(model, self._tokenizer, each, self._training, self._measurement).nll for each in texts]

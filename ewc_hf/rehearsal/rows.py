"""`Rehearsal`: rows of text with the old model's answers, in memory and beside a checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from ..engines import agreed, process_index
from ..storage import local_folder, read_json, replaced, sha256, upload, write_json
from .answers import DRAWS
from .batches import remove_batches
from .columns import COLUMNS

REHEARSAL_CONFIG, REHEARSAL_ROWS = "rehearsal_config.json", "rehearsal.parquet"
_FORMAT = 2
_REQUIRED = {
    "format",
    "source",
    "num_rows",
    "num_tokens",
    "top_k",
    "draws",
    "vocab_size",
    "model",
    "tokenizer",
    "sha256",
}


class Rehearsal:
    """Rows of text, and what the old model answers at each position of them.

    >>> rows = Rehearsal.from_pretrained("old")
    >>> written = rows.texts(tokenizer)

    Attributes:
        rows: one row a text: `input_ids`, `answer_ids`, `log_probs` and `rest`, see `columns.py`.
        metadata: where the rows are from ("model" or "text"), how many, how long, how many answers a position
            (`top_k`, and `draws` from all others), of how many tokens (`vocab_size`), the seed, the temperature, and
            fingerprints of the model and the tokenizer.

    Args:
        rows: see above.
        metadata: see above.
        batches: folder of the finished batches that they were made of, which are removed once they are saved.
    """

    def __init__(self, rows: Dataset, metadata: dict[str, Any], batches: str | os.PathLike[str] | None = None) -> None:
        self.rows, self.metadata, self._batches = rows, metadata, batches

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.rows)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `rehearsal.parquet` and `rehearsal_config.json`; the first process writes, all may call this.

        Args:
            folder: made where it is missing; the checkpoint's own is the usual one.
        """

        def write() -> None:
            self._write(Path(folder))
            self._remove_batches()

        agreed(write if process_index() == 0 else lambda: None)

    @property
    def num_tasks(self) -> int:
        """After how many tasks they were made: 1, or more where some were merged."""
        return int(self.metadata.get("num_tasks", 1))

    @property
    def blocks(self) -> Dataset:
        """What the rows say, as text to estimate an importance on where there is no old text."""
        return self.rows.select_columns(["input_ids"])

    def texts(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """Return what the rows say, to measure forgetting on where there is no old text; take rows that do not ride.

        Args:
            tokenizer: that they were made with.
        """
        ids: list[list[int]] = self.rows.with_format(None)["input_ids"][:]
        return tokenizer.batch_decode(ids, skip_special_tokens=True)

    def merge(self, new: Rehearsal, num_rows: int, seed: int = 0) -> Rehearsal:
        """Return rows of several tasks, about equally many of each, whose total is bounded.

        Args:
            new: rows that the model wrote after it had learned the next task; those of the tasks before are here.
            num_rows: of the result.
            seed: of the draw, since not all are kept.

        Raises:
            ValueError: other answers a position, another tokenizer or vocabulary, or fewer rows than are wanted.
        """
        for key in ("top_k", "draws", "tokenizer", "vocab_size"):
            if self.metadata[key] != new.metadata[key]:
                raise ValueError(
                    f"expected rows with the same {key}, got {self.metadata[key]} and {new.metadata[key]}; make both "
                    "in the same way"
                )
        num_tasks = self.num_tasks + 1
        newest = num_rows // num_tasks
        drawn = [_drawn(self.rows, num_rows - newest, seed), _drawn(new.rows, newest, seed)]
        num_tokens = max(self.metadata["num_tokens"], new.metadata["num_tokens"])
        metadata = {**new.metadata, "num_rows": num_rows, "num_tokens": num_tokens, "num_tasks": num_tasks}
        return Rehearsal(concatenate_datasets(drawn).flatten_indices(), metadata)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the rows to a repository of the Hub, which is made where it is missing, and return the commit's URL.

        In several processes one of them calls this.

        Args:
            repo_id: `owner/name`, or `name` of one's own; the old model's is the usual one.
            options: `subfolder`, `revision`, `token`, `private` and `commit_message`, see `ewc_hf.storage.upload`.
        """
        files = [REHEARSAL_CONFIG, REHEARSAL_ROWS]
        url = upload(repo_id, self._write, files, **{"commit_message": "Rehearsal rows", **options})
        self._remove_batches()
        return url

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        table = self.rows.with_format("arrow")[:]
        with replaced(folder / REHEARSAL_CONFIG) as config, replaced(folder / REHEARSAL_ROWS) as rows:
            pq.write_table(table, rows, compression="zstd")
            write_json(config, {**self.metadata, "sha256": sha256(rows)})

    def _remove_batches(self) -> None:
        if self._batches is not None:
            remove_batches(Path(self._batches))
            self._batches = None

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        revision: str | None = None,
        subfolder: str = "",
        token: str | None = None,
    ) -> Rehearsal:
        """Read what `save_pretrained` wrote; the rows stay on disk until they are used.

        Args:
            source: a folder that `save_pretrained` wrote, or a Hub id as `owner/name` or `owner/name@revision/folder`.
            revision: of a Hub id: a branch, tag or commit.
            subfolder: of the folder or the Hub's repository.
            token: for private repositories; by default the one that the user has logged in with.

        Raises:
            ValueError: nothing there, another format, or rows that are not those the configuration tells of.
        """
        files = [REHEARSAL_CONFIG, REHEARSAL_ROWS]
        folder = local_folder(source, files, revision=revision, subfolder=subfolder, token=token)
        metadata = read_json(folder / REHEARSAL_CONFIG)
        known = isinstance(metadata, dict) and metadata.keys() >= _REQUIRED
        if not known or (metadata["format"], metadata["draws"]) != (_FORMAT, DRAWS):
            raise ValueError(
                f"expected rehearsal rows of format {_FORMAT} in '{folder / REHEARSAL_CONFIG}', got another content; "
                "generate them again with this version"
            )
        path, recorded = folder / REHEARSAL_ROWS, metadata.pop("sha256")
        if not path.is_file():
            raise ValueError(f"expected the file '{REHEARSAL_ROWS}' in '{folder}', got no such file; copy it again")
        if (found := sha256(path)) != recorded:
            raise ValueError(
                f"expected SHA-256 {recorded} of '{path}', got {found}; the file was truncated or changed since it "
                "was saved: copy or generate it again"
            )
        rows = Dataset.from_parquet(str(path))
        if set(rows.column_names) != set(COLUMNS) or len(rows) != metadata["num_rows"]:
            raise ValueError(
                f"expected {metadata['num_rows']} rows with the columns {list(COLUMNS)} in '{path}', got {len(rows)} "
                f"with {rows.column_names}; generate them again"
            )
        return cls(rows, metadata)


def _drawn(rows: Dataset, number: int, seed: int) -> Dataset:
    if len(rows) < number:
        raise ValueError(f"expected at least {number} rows to draw from, got {len(rows)}; make more, or ask for fewer")
    return rows.with_format(None).shuffle(seed=seed).select(range(number))


def require_tokenizer(metadata: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that rows were made with a tokenizer, or with what it was before tokens were added to it.

    Raises:
        ValueError: it is another one.
    """
    known = metadata["tokenizer"]
    if known is not None and tokenizer_fingerprint(tokenizer, known["num_tokens"]) != known:
        raise ValueError(
            "expected the tokenizer that the rehearsal rows were made with, or one with tokens added to it, got "
            "another; generate rows with the tokenizer of this run"
        )


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase, num_tokens: int | None = None) -> dict[str, Any]:
    """Return how many tokens a tokenizer has, and the SHA-256 (hex) of them and their ids.

    Args:
        tokenizer: of a model.
        num_tokens: of the lowest ids, in place of all: what was added to them has higher ones.
    """
    tokens = sorted(tokenizer.get_vocab().items(), key=itemgetter(1))[:num_tokens]
    return {"num_tokens": len(tokens), "sha256": hashlib.sha256(json.dumps(sorted(tokens)).encode()).hexdigest()}


def described(**details: Any) -> dict[str, Any]:
    """Return metadata of this format."""
    return {"format": _FORMAT, "draws": DRAWS, **details}

"""Reading documents from local files or Hub datasets."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, load_dataset

from .files import names_local_files, read_local


def load_texts(source: str, *, split: str = "train", max_documents: int | None = None, seed: int = 0) -> Dataset:
    """Read a dataset from a local file, a folder of files, or the Hub.

    Args:
        source: a `.txt` (one document), `.json`, `.jsonl`, `.csv` or `.parquet` file, all but the last also as `.gz`;
            a folder of such files of one kind, or one that `datasets` saved; or a Hub id, with the configuration after
            a colon where it has several: `owner/name:configuration`. Of a folder of files only those that begin with
            `split` are read, where there are any.
        split: the split of a Hub dataset or folder.
        max_documents: read at most so many, a random sample by `seed`.
        seed: of the sample.

    Raises:
        ValueError: nothing there that can be read, files of several kinds, a broken one, no document, or none wanted.
    """
    if max_documents is not None and max_documents < 1:
        raise ValueError(f"expected a document to be read of '{source}', got {max_documents} as the most; name more")
    if names_local_files(source):
        dataset = read_local(Path(source).expanduser(), split)
    else:
        name, _, configuration = source.partition(":")
        try:
            dataset = load_dataset(name, configuration or None, split=split)
        except Exception as error:
            raise ValueError(
                f"expected a file, a folder or a Hub dataset with the split '{split}', got '{source}', of which the "
                f"Hub says {type(error).__name__}: {error}; check owner/name:configuration, the split and the network"
            ) from error
    if len(dataset) == 0:
        raise ValueError(f"expected at least one document in '{source}', got none; check the file and the split")
    if max_documents is not None and max_documents < len(dataset):
        dataset = dataset.shuffle(seed=seed).select(range(max_documents))
    return dataset

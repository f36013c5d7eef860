"""Which examples of a dataset are read."""

import pytest
import torch
from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader

from ewc_hf.data import sample_examples

ROWS = [{"x": n} for n in range(9)]


@pytest.mark.parametrize("dataset", [ROWS, tuple(ROWS), Dataset.from_list(ROWS)], ids=["list", "tuple", "Dataset"])
def test_a_sample_is_drawn_without_replacement_and_fixed_by_the_seed(dataset):
    samples = [[row["x"] for row in sample_examples(dataset, 5, seed)] for seed in range(6)]
    assert all(len(set(sample)) == 5 for sample in samples)
    assert samples[0] == [row["x"] for row in sample_examples(dataset, 5, 0)]
    assert len({tuple(sample) for sample in samples}) > 1
    assert sorted(row["x"] for row in sample_examples(dataset, 99, 1)) == list(range(9))


@pytest.mark.parametrize(
    "stream", [iter(ROWS), IterableDataset.from_generator(lambda: iter(ROWS))], ids=["iter", "hf"]
)
def test_a_stream_gives_its_first_examples(stream):
    assert sample_examples(stream, 4, seed=3) == ROWS[:4]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([], "got an empty one"),
        (iter([]), "got an empty one"),
        ({"train": ROWS, "test": ROWS}, r"got a mapping of \['test', 'train'\]; choose one"),
        (DataLoader(ROWS), "single examples, got a DataLoader, which yields batches; pass its `dataset`"),
        ("text", "mappings from the names of a model's inputs to their values, got str"),
        (["one", "two"], r"got str '(one|two)'; give rows such as \{'input_ids'"),
        ([([1, 2], 0)], r"got tuple '\(\[1, 2\], 0\)'"),
        ([{"input_ids": []}, {"input_ids": torch.tensor([])}], "with tokens, got 2 empty ones"),
    ],
)
def test_what_holds_no_examples_is_refused(dataset, message):
    with pytest.raises(ValueError, match=message):
        sample_examples(dataset, 3, seed=0)


def test_examples_without_a_token_are_left_out(caplog):
    rows = [{"input_ids": ids} for ids in ([1, 2], [], [3])]
    assert sorted(row["input_ids"] for row in sample_examples(rows, 3, seed=0)) == [[1, 2], [3]]
    assert "1 of 3 examples have no token" in caplog.text

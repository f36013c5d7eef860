"""From a dataset to batches: which examples, how they are padded, and where their labels are."""

import pytest
import torch
from architectures import MLP, ConvNet, t5
from conftest import gpt2
from datasets import Dataset, IterableDataset
from ewc_hf.batching import batches, logits_of, pad_examples, sample_examples
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification


def bert(head):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    return head(BertConfig(vocab_size=40, max_position_embeddings=32, **sizes))


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


def test_padding_marks_labels_and_mask(model):
    batch = pad_examples([{"input_ids": [5, 6, 7]}, {"input_ids": [8], "labels": [9]}], model)
    assert {key: value.tolist() for key, value in batch.items()} == {
        "input_ids": [[5, 6, 7], [8, 0, 0]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "labels": [[5, 6, 7], [9, -100, -100]],
    }


KINDS = {
    "masked on the left": (gpt2, {"input_ids": [0, 6], "attention_mask": [0, 1]}, {"labels": [[-100, 6]]}),
    "tensors": (gpt2, {"input_ids": torch.tensor([5, 6])}, {"input_ids": [[5, 6]], "attention_mask": [[1, 1]]}),
    "text is left out": (gpt2, {"input_ids": [5, 6], "text": "a"}, {"input_ids": [[5, 6]]}),
    "label of a sequence": (
        lambda: bert(BertForSequenceClassification),
        {"input_ids": [5, 6], "label": 1, "token_type_ids": [0, 1]},
        {"labels": [1], "attention_mask": [[1, 1]], "token_type_ids": [[0, 1]]},
    ),
    "labels of tokens": (
        lambda: bert(BertForTokenClassification),
        {"input_ids": [5, 6], "attention_mask": [1, 0], "labels": [1, 0]},
        {"labels": [[1, -100]]},
    ),
    "labels of another length": (t5, {"input_ids": [5, 6, 7], "labels": [8]}, {"labels": [[8]]}),
    "pictures": (
        MLP,
        {"images": [[0.5] * 12], "label": 3, "input_ids": [1]},
        {"images": [[[0.5] * 12]], "labels": [3]},
    ),
}


@pytest.mark.parametrize(("build", "example", "expected"), [pytest.param(*KINDS[kind], id=kind) for kind in KINDS])
def test_columns_of_many_kinds(build, example, expected):
    batch = {key: value.tolist() for key, value in pad_examples([example], build()).items()}
    assert expected.items() <= batch.items()
    assert batch.keys() <= {"input_ids", "attention_mask", "token_type_ids", "images", "labels"}
    assert "images" not in batch or "input_ids" not in batch


BAD = {
    "positions": (gpt2, [{"input_ids": [1], "position_ids": [0]}], "one sequence each, got 'position_ids'"),
    "text": (gpt2, [{"text": "a"}], r"key 'input_ids', got the keys \['text'\]; tokenize the dataset first"),
    "pictures of another name": (MLP, [{"pixels": [1.0], "label": 1}], r"key one of \['images'\], got .*'pixels'"),
    "lengths": (gpt2, [{"input_ids": [1, 2], "labels": [1]}], "as long as 'input_ids', got the lengths"),
    "no labels": (t5, [{"input_ids": [1, 2]}], r"key 'labels', got the keys \['input_ids'\]; add the column"),
    "keys": (gpt2, [{"input_ids": [1]}, {"input_ids": [1], "inputs_embeds": [[1.0]]}], "use one set of columns"),
    "shapes": (
        ConvNet,
        [{"images": torch.zeros(1, 12, 12), "label": 1}, {"images": torch.zeros(1, 12, 11), "label": 1}],
        r"'images' of one shape, got \[\(1, 12, 11\), \(1, 12, 12\)\]",
    ),
}


@pytest.mark.parametrize(("build", "examples", "message"), [pytest.param(*BAD[kind], id=kind) for kind in BAD])
def test_examples_that_do_not_fit_are_refused(build, examples, message):
    with pytest.raises(ValueError, match=message):
        pad_examples(examples, build())


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([], "got an empty one"),
        (iter([]), "got an empty one"),
        ({"train": ROWS, "test": ROWS}, r"got a mapping of \['test', 'train'\]; choose one"),
    ],
)
def test_datasets_without_examples_are_refused(dataset, message):
    with pytest.raises(ValueError, match=message):
        sample_examples(dataset, 3, seed=0)


def test_batches_keep_every_example_in_order(model, ragged):
    """Each label is at the position before its token, which predicts it."""
    got = list(batches(ragged, 2, None, model))
    assert [len(batch["labels"]) for batch in got] == [2, 2, 1]
    predicted = [row[row != -100].tolist() for batch in got for row in batch["labels"]]
    assert predicted == [example["input_ids"][1:] for example in ragged]


def test_labels_of_other_models_stay_in_place():
    """An encoder-decoder is given its labels one later, after its start token."""
    model = t5()
    (batch,) = batches([{"input_ids": [5, 6, 7], "labels": [8, 9]}], 2, None, model)
    assert batch["labels"].tolist() == [[8, 9]]
    assert batch["decoder_input_ids"].tolist() == [[0, 8]]
    (batch,) = batches([{"input_ids": [5, 6], "label": 1}], 2, None, bert(BertForSequenceClassification))
    assert batch["labels"].tolist() == [1]


def test_a_collator_replaces_the_padding_and_its_labels_are_shifted(model, ragged):
    seen = []

    def collate(examples):
        seen.append(len(examples))
        return {"input_ids": torch.tensor([[5, 6, 7]] * 3), "labels": torch.tensor([[-100, 6, 7]] * 3)}

    got = list(batches([*ragged, ragged[0]], 3, collate, model))
    assert seen == [3, 3]
    assert got[0].keys() == {"input_ids", "labels"}
    assert got[0]["labels"].tolist() == [[6, 7, -100]] * 3


def test_logits_have_a_row_for_each_label(model, packed):
    """The model is not given the labels, and computes no loss of its own."""
    (batch,) = batches(packed, 4, None, model)
    batch["uniforms"] = torch.zeros(4, 9)
    assert logits_of(model, batch).shape == (4, 9, 40)
    batch["labels"] = batch["labels"][:, 1:]
    with pytest.raises(ValueError, match=r"one row for each of \(4, 8\) labels, got logits of shape \(4, 9, 40\)"):
        logits_of(model, batch)

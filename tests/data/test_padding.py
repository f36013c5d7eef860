"""Examples of many kinds in one batch: what is padded, masked, left out and refused."""

import pytest
import torch
from architectures import MLP, ConvNet, bert, t5
from conftest import gpt2
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    FNetConfig,
    FNetForMaskedLM,
)

from ewc_hf.data import pad_examples


def fnet():
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 12}
    return FNetForMaskedLM(FNetConfig(**sizes, max_position_embeddings=8))


def test_padding_marks_labels_and_mask(model):
    batch = pad_examples([{"input_ids": [5, 6, 7]}, {"input_ids": [8], "labels": [9]}], model)
    assert {key: value.tolist() for key, value in batch.items()} == {
        "input_ids": [[5, 6, 7], [8, 0, 0]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "labels": [[5, 6, 7], [9, -100, -100]],
    }


def test_token_ids_are_padded_with_the_token_that_the_model_knows_as_padding():
    """A classifier looks for it, to find the last token of a text."""
    model = gpt2()
    model.config.pad_token_id = 11
    assert pad_examples([{"input_ids": [5, 6]}, {"input_ids": [8]}], model)["input_ids"].tolist() == [[5, 6], [8, 11]]


KINDS = {
    "a mask": (gpt2, {"input_ids": [0, 6], "attention_mask": [0, 1]}, {"attention_mask": [[0, 1]]}),
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
        {"labels": [[1, 0]]},
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
    "two positions": (
        lambda: bert(BertForQuestionAnswering),
        [{"input_ids": [1, 2], "start_positions": 0, "end_positions": 1}],
        "got BertForQuestionAnswering, whose answers are two positions",
    ),
    "padding without a mask": (
        fnet,
        [{"input_ids": [1, 2], "attention_mask": [1, 0], "labels": [1, 2]}],
        "without padding for a model that takes no attention mask",
    ),
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

"""Batches of all examples in order, with labels at the positions that predict them, and parts of a batch."""

import pytest
import torch
from architectures import bert, t5
from conftest import gpt2
from transformers import BertForSequenceClassification, BertForTokenClassification

from ewc_hf.data import IGNORED, Batch, batches


def test_batches_keep_every_example_in_order(model, ragged):
    """Each label is at the position before its token, which predicts it."""
    got = list(batches(ragged, 2, None, model))
    assert [len(batch) for batch in got] == [2, 2, 1]
    assert [batch.numbers.tolist() for batch in got] == [[0, 1], [2, 3], [4]]
    predicted = [row[row != -100].tolist() for batch in got for row in batch.labels]
    assert predicted == [example["input_ids"][1:] for example in ragged]


def test_labels_of_other_models_stay_in_place():
    (batch,) = batches([{"input_ids": [5, 6, 7], "labels": [8, 9]}], 2, None, t5())
    assert batch.labels.tolist() == [[8, 9]]
    (batch,) = batches([{"input_ids": [5, 6], "label": 1}], 2, None, bert(BertForSequenceClassification))
    assert batch.labels.tolist() == [1]


MASKED = {
    "on the left": (gpt2, [0, 0, 1, 1, 1], [-100, -100, 7, 8, -100]),
    "on the right": (gpt2, [1, 1, 1, 0, 0], [5, 6, -100, -100, -100]),
    "of a classifier of tokens": (lambda: bert(BertForTokenClassification), [0, 1, 1, 1, 0], [-100, 1, 0, 1, -100]),
}


@pytest.mark.parametrize(("build", "mask", "expected"), [pytest.param(*MASKED[kind], id=kind) for kind in MASKED])
@pytest.mark.parametrize("collator", [None, lambda examples: {k: torch.tensor([v]) for k, v in examples[0].items()}])
def test_padding_is_no_label_and_predicts_none(build, mask, expected, collator):
    labels = [4, 5, 6, 7, 8] if build is gpt2 else [0, 1, 0, 1, 0]
    example = {"input_ids": [4, 5, 6, 7, 8], "attention_mask": mask, "labels": labels}
    (batch,) = batches([example], 1, collator, build())
    assert batch.labels.tolist() == [expected]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_mask_of_an_encoder_hides_no_label_of_the_decoder(side):
    mask = [0, 1, 1] if side == "left" else [1, 1, 0]
    (batch,) = batches([{"input_ids": [5, 6, 7], "attention_mask": mask, "labels": [8, 9, 4]}], 1, None, t5())
    assert batch.labels.tolist() == [[8, 9, 4]]
    masked = {"input_ids": [5, 6, 7], "labels": [8, 9, 4], "decoder_attention_mask": [1, 1, 0]}
    (batch,) = batches([masked], 1, None, t5())
    assert batch.labels.tolist() == [[8, 9, -100]]


def test_examples_alone_have_no_padding(model, ragged):
    (batch,) = batches(ragged, len(ragged), None, model)
    assert len({len(example["input_ids"]) for example in ragged}) > 1
    pieces = zip(batch.rows(torch.tensor([2, 0])).alone(), [ragged[2], ragged[0]], strict=True)
    for alone, example in pieces:
        assert alone.inputs["input_ids"].tolist() == [example["input_ids"]]
        assert alone.inputs["attention_mask"].all()
        assert alone.labels.tolist() == [[*example["input_ids"][1:], -100]]
    assert not next(batch.alone()).lengths
    (even,) = batches([ragged[0]] * 2, 2, None, model)
    assert not even.lengths


def test_a_collator_replaces_the_padding_and_its_labels_are_shifted(model, ragged):
    seen = []

    def collate(examples):
        seen.append(len(examples))
        return {"input_ids": torch.tensor([[5, 6, 7]] * 3), "labels": torch.tensor([[-100, 6, 7]] * 3)}

    got = list(batches([*ragged, ragged[0]], 3, collate, model))
    assert seen == [3, 3]
    assert got[0].inputs.keys() == {"input_ids"}
    assert got[0].labels.tolist() == [[6, 7, -100]] * 3


LABELS_BT = torch.tensor([[7, IGNORED], [8, 9], [IGNORED, IGNORED], [5, IGNORED], [6, 4]])
BATCH = Batch({"input_ids": torch.arange(10).view(5, 2)}, LABELS_BT, torch.arange(20, 25))


def assert_rows(batch, rows):
    """All that belongs to an example is there."""
    assert torch.equal(batch.inputs["input_ids"], BATCH.inputs["input_ids"][rows])
    assert torch.equal(batch.labels, LABELS_BT[rows])
    assert torch.equal(batch.numbers, BATCH.numbers[rows])


@pytest.mark.parametrize(
    ("rows", "positions"),
    [(torch.tensor([3, 0]), [3, 0]), (torch.tensor([], dtype=torch.long), []), (slice(1, 4), [1, 2, 3])],
    ids=["positions", "none", "slice"],
)
def test_rows_are_whole_examples(rows, positions):
    assert_rows(BATCH.rows(rows), positions)


@pytest.mark.parametrize(
    ("size", "pieces"), [(1, [[0], [1], [2], [3], [4]]), (2, [[0, 1], [2, 3], [4]]), (9, [[0, 1, 2, 3, 4]])]
)
def test_pieces_are_all_examples_in_order(size, pieces):
    for piece, rows in zip(BATCH.split(size), pieces, strict=True):
        assert_rows(piece, rows)


@pytest.mark.parametrize("even", [False, True], ids=["as they come", "even"])
@pytest.mark.parametrize(
    ("size", "shares"), [(1, [[0, 1, 2, 3, 4]]), (2, [[0, 2, 4], [1, 3]]), (7, [[0], [1], [2], [3], [4], [], []])]
)
def test_shares_are_all_examples_and_what_evens_them_has_no_label(size, shares, even):
    before, largest = LABELS_BT.clone(), max(map(len, shares))
    for index, rows in enumerate(shares):
        share = BATCH.share(index, size, even)
        assert len(share) == (largest if even else len(rows))
        assert_rows(share.rows(slice(len(rows))), rows)
        assert share.rows(slice(len(rows), None)).num_label_tokens == 0
    assert torch.equal(LABELS_BT, before)


def test_label_tokens_are_those_that_count():
    assert [row.num_label_tokens for row in BATCH.split(1)] == [1, 2, 0, 1, 2]
    assert BATCH.num_label_tokens == 6

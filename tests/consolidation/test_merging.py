"""The consolidation of several tasks."""

import json
import math

import pytest
import torch
from conftest import make_consolidation
from stored_files import assert_equal

from ewc_hf import Consolidation


@pytest.mark.parametrize("decay", [1.0, 0.25, 0.0])
def test_merging_adds_what_decays(small, decay):
    new = make_consolidation({"a": (3, 4), "b": (5,), "c": (2, 2)}, seed=1, num_examples=2, num_tokens=10)
    merged = small.merge(new, decay)
    for name, omega in new.importance.items():
        torch.testing.assert_close(merged.importance[name], decay * small.importance[name] + omega)
        assert torch.equal(merged.anchor[name], new.anchor[name])
    assert (merged.metadata["num_examples"], merged.metadata["num_tokens"]) == (5, 34)
    assert [(task["weight"], task["num_tokens"]) for task in merged.metadata["tasks"]] == [(decay, 24), (1.0, 10)]
    assert merged.metadata["anchor"] == new.metadata["anchor"]
    fingerprints = {c.metadata["importance_fingerprint"] for c in (merged, new)}
    assert len(fingerprints) == (1 if decay == 0 else 2)


def test_merging_twice_decays_the_oldest_task_twice(tmp_path, small):
    merged = small.merge(small, decay=0.5).merge(small, decay=0.5)
    assert [task["weight"] for task in merged.metadata["tasks"]] == [0.25, 0.5, 1.0]
    torch.testing.assert_close(merged.importance["a"], 1.75 * small.importance["a"])
    merged.save_pretrained(tmp_path)
    assert_equal(Consolidation.from_pretrained(tmp_path), merged)


def test_merging_leaves_both_as_they_were(small):
    new = make_consolidation({"a": (3, 4), "b": (5,), "c": (2, 2)}, seed=1)
    before = [{k: v.clone() for k, v in c.importance.items()} for c in (small, new)]
    metadata = json.dumps([small.metadata, new.metadata])
    small.merge(new, decay=0.5)
    for consolidation, old in zip((small, new), before, strict=True):
        assert all(torch.equal(consolidation.importance[name], omega) for name, omega in old.items())
    assert json.dumps([small.metadata, new.metadata]) == metadata


def test_a_borrowed_anchor_stays_borrowed(tmp_path, small):
    """Else weights that have moved since would be stored as the anchor."""
    new = make_consolidation({"a": (3, 4), "b": (5,), "c": (2, 2)}, seed=1, anchor_is_borrowed=True)
    merged = small.merge(new)
    new.anchor["a"] += 1
    with pytest.raises(ValueError, match="got weights that have moved since"):
        merged.save_pretrained(tmp_path)


SHAPES = {"a": (3, 4), "b": (5,), "c": (2, 2)}
UNFIT = {
    "quantity": ({"unit": "squared gradient of predicted labels per token"}, 1.0, "importances of the same unit"),
    "method": ({"method": "mas"}, 1.0, "importances of the same method, got 'fisher' and 'mas'; estimate both"),
    "unit": ({"unit": "furlongs"}, 1.0, "importances of the same unit, got 'nats per token' and 'furlongs'"),
    "names": ({"shapes": {"a": (3, 4), "b": (5,)}}, 1.0, "same parameters in older importance and newer .*'c'"),
    "shapes": ({"shapes": {**SHAPES, "b": (6,)}}, 1.0, r"same shape of 'b' in older .*, got \(5,\) and \(6,\)"),
    "decay above 1": ({}, 1.5, "expected 0 <= decay <= 1, got 1.5"),
    "decay below 0": ({}, -0.1, "expected 0 <= decay <= 1, got -0.1"),
    "decay NaN": ({}, math.nan, "expected 0 <= decay <= 1, got nan"),
}


@pytest.mark.parametrize(("options", "decay", "message"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_is_not_merged(small, options, decay, message):
    new = make_consolidation(**{"shapes": SHAPES, "seed": 1, **options})
    with pytest.raises(ValueError, match=message):
        small.merge(new, decay)

"""The logits that objectives are made of."""

from dataclasses import replace

import pytest

from ewc_hf.data import batches
from ewc_hf.importance.objective import logits_of


def test_logits_have_a_row_for_each_label(model, packed):
    """The model is not given the labels, and computes no loss of its own."""
    (batch,) = batches(packed, 4, None, model)
    assert logits_of(model, batch).shape == (4, 9, 40)
    with pytest.raises(ValueError, match=r"one row for each of \(4, 8\) labels, got logits of shape \(4, 9, 40\)"):
        logits_of(model, replace(batch, labels=batch.labels[:, 1:]))

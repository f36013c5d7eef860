import dataclasses
import math

import numpy as np
import pytest
from made_up_records import PRETRAINED, record, study

from ewc_hf.study import RunRecord
from ewc_hf.study.records import mean_and_interval, with_forgetting

FIELDS = (
    "name method curves label needs_old_text fraction overrides seed "
    "task_nll task_perplexity retention_nll retention_perplexity forgetting forgetting_interval forgetting_removed "
    "seconds seconds_a_step peak_memory_bytes continuations task_documents retention_documents"
).split()


def test_record_keeps_the_field_order():
    assert [field.name for field in dataclasses.fields(RunRecord)] == FIELDS


@pytest.mark.parametrize(
    ("values", "mean", "half_width"),
    [
        ([3.0], 3.0, None),
        ([1.0, 3.0], 2.0, 12.706204736),  # t(0.975, 1) * sqrt(2) / sqrt(2)
        ([1.0, 2.0, 3.0], 2.0, 4.302652730 / math.sqrt(3)),
        ([2.0, 2.0, 2.0], 2.0, 0.0),
    ],
)
def test_mean_and_interval(values, mean, half_width):
    assert mean_and_interval(values) == (pytest.approx(mean), half_width and pytest.approx(half_width))


def test_forgetting_is_measured_from_pretrained_and_removed_from_plain_of_the_seed():
    runs = [
        PRETRAINED,
        record("plain", 0, 0, 4.0, 5.0),
        record("plain", 0, 1, 4.0, 4.5),
        record("fisher", 10, 0, 4.1, 4.25),
        record("fisher", 10, 1, 4.1, 4.25),
        record("fisher", 10, 2, 4.1, 4.25),
        record("l2", 1, 0, 4.1, 3.9),
    ]
    filled = with_forgetting(runs)
    assert [run.forgetting for run in filled] == pytest.approx([0, 1, 0.5, 0.25, 0.25, 0.25, -0.1])
    assert [run.forgetting_removed for run in filled] == [None, 0, 0, 0.75, 0.5, None, pytest.approx(1.1)]
    assert with_forgetting(filled) == filled
    assert runs[1].forgetting is None, "what is not known yet is no 0"


def test_what_a_run_measured_is_all_but_what_other_runs_tell():
    filled = with_forgetting([PRETRAINED, record("plain", 0, 0, 4.0, 5.0)])[1]
    assert filled.forgetting == 1.0
    others = [name for name in FIELDS if name == "curves" or name.startswith("forgetting")]
    assert list(filled.measured()) == [name for name in FIELDS if name not in others]
    again = RunRecord(**filled.measured(), curves=filled.curves)
    assert with_forgetting([PRETRAINED, again])[1] == filled


def test_the_interval_over_documents_compares_each_document_with_itself():
    """What makes a document hard for both models does not count: here every document loses 0.5 nats a token."""
    num_tokens = np.array([10, 20, 40])
    hard = np.array([3.0, 9.0, 6.0])
    before = [[nll * n, int(n)] for nll, n in zip(hard, num_tokens, strict=True)]
    after = [[(nll + 0.5) * n, int(n)] for nll, n in zip(hard, num_tokens, strict=True)]
    pretrained = dataclasses.replace(PRETRAINED, retention_documents=before)
    plain = record("plain", 0, 0, 4.0, 4.5, retention_documents=after)
    filled = with_forgetting([pretrained, plain, record("plain", 0, 1, 4.0, 4.5)])
    assert filled[1].forgetting_interval == pytest.approx([0.5, 0.5])
    assert filled[0].forgetting_interval is None and filled[2].forgetting_interval is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_and_interval([]), "at least one value.*got none.*pass"),
        (lambda: with_forgetting(study()[1:]), 'one record named "pretrained", got 0.*evaluate'),
        (lambda: with_forgetting([PRETRAINED, *study()]), 'one record named "pretrained", got 2'),
        (lambda: with_forgetting([*study(), record("plain", 0, 1, 4.0, 5.0)]), "got 2 of .'plain', 1.*name"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

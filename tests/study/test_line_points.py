"""What is measured at a point of a line, and how often."""

import numpy as np
import pytest
from old_and_tuned import BOOK_TEXTS, DIALOG_TEXTS, old_and_tuned
from tiny import SENTENCES, tiny_tokenizer

from ewc_hf import evaluate_perplexity
from ewc_hf.evaluation import interval_over_documents
from ewc_hf.study import WeightLine
from ewc_hf.study.line_points import LineReader, LineTexts

RETENTION = [*SENTENCES, *BOOK_TEXTS, *DIALOG_TEXTS]


class CountedLine(WeightLine):
    """Keeps where the model went."""

    visited: tuple = ()

    def move_to(self, t):
        self.visited += (t,)
        super().move_to(t)


@pytest.fixture(scope="module")
def ends():
    return old_and_tuned()


@pytest.fixture
def reader(ends):
    old, tuned = ends
    model, _ = old_and_tuned()
    line = CountedLine(model, dict(old.named_parameters()), dict(tuned.named_parameters()))
    return LineReader(model, line, tiny_tokenizer(), LineTexts(RETENTION, DIALOG_TEXTS, seed=5)), line


def test_forgetting_is_counted_from_the_old_model_whatever_is_measured_first(reader, ends):
    measure = reader[0].measure
    point = measure(1.0)
    before, after = (evaluate_perplexity(model, tiny_tokenizer(), RETENTION, progress=False) for model in ends)
    assert point.forgetting == after.nll - before.nll
    assert [p.t for p in reader[0].points()] == [0, 1]


def test_each_point_is_measured_once(reader):
    reader, line = reader
    points = [reader.measure(t) for t in (0.5, 0.0, 0.5, 0.25, 1.0, 0.25)]
    assert line.visited == (0, 0.5, 0.25, 1)
    assert points[0] is points[2]
    assert [point.t for point in reader.points()] == [0, 0.25, 0.5, 1]


def test_the_interval_of_forgetting_compares_document_by_document(reader, ends):
    point = reader[0].measure(1.0)
    before, after = (evaluate_perplexity(model, tiny_tokenizer(), RETENTION, progress=False) for model in ends)
    rises = np.array([new.nll_sum - old.nll_sum for old, new in zip(before.documents, after.documents, strict=True)])
    tokens = np.array([document.num_tokens for document in before.documents])
    assert point.forgetting_interval == interval_over_documents(rises, tokens, seed=5)
    assert point.forgetting_interval != interval_over_documents(rises, tokens, seed=0)

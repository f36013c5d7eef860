"""Scores in the harness's tasks, against likelihoods that are summed by hand; and tasks that are not there."""

import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from book_endings import write_book_endings
from tiny import tiny_gpt2, tiny_tokenizer

from ewc_hf.data import document_texts, load_texts
from ewc_hf.evaluation import BenchmarkScore, evaluate_benchmarks

SHARED = Path(__file__).parents[2] / "../shared"
WORDS = "the old lighthouse keeper counted ships and stars snow fell on a stone bridge river ran cold".split()
# The harness and `datasets` leave files open.
pytestmark = [
    pytest.mark.usefixtures("datasets_cache"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def model():
    return tiny_gpt2(context=128)


@pytest.fixture
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def questions(tmp_path):
    draw = random.Random(0)
    return write_book_endings(tmp_path / "tasks", [" ".join(draw.choices(WORDS, k=16)) for _ in range(12)])


def log_likelihood(model, tokenizer, beginning, ending):
    begin, whole = (tokenizer(text)["input_ids"] for text in (beginning, f"{beginning} {ending}"))
    with torch.no_grad():
        logprobs = model.eval()(torch.tensor([whole])).logits[0].log_softmax(-1)
    return sum(logprobs[place - 1, whole[place]].item() for place in range(len(begin), len(whole)))


def test_the_scores_are_those_of_summed_log_likelihoods(tmp_path, model, tokenizer, questions):
    right, by_length = [], []
    for question in questions:
        beginning, endings = question["beginning"], question["endings"]
        sums = [log_likelihood(model, tokenizer, beginning, ending) for ending in endings]
        means = [nats / len(ending) for nats, ending in zip(sums, endings, strict=True)]
        right.append(float(np.argmax(sums) == question["right"]))
        by_length.append(float(np.argmax(means) == question["right"]))
    plain, normalized = evaluate_benchmarks(model, tokenizer, ["book_endings"], folder=tmp_path / "tasks")
    assert (plain.metric, plain.scores) == ("acc", right)
    assert (normalized.metric, normalized.scores) == ("acc_norm", by_length)
    assert 0 < plain.mean < 1  # neither is trivially so


def test_a_group_is_all_its_questions_together(tmp_path, model, tokenizer, questions):
    folder = tmp_path / "tasks"
    text = (folder / "book_endings.yaml").read_text()
    (folder / "again.yaml").write_text(text.replace("task: book_endings", "task: endings_again"))
    (folder / "both.yaml").write_text("group: both\ntask: [book_endings, endings_again]\n")
    once, *_ = evaluate_benchmarks(model, tokenizer, ["book_endings"], folder=folder)
    both, *_ = evaluate_benchmarks(model, tokenizer, ["both"], folder=folder)
    assert (both.name, both.scores) == ("both", once.scores * 2)


def test_of_a_group_without_a_common_metric_each_task_stands_alone(tmp_path, model, tokenizer, questions):
    folder = tmp_path / "tasks"
    text = (folder / "book_endings.yaml").read_text()
    other = text.replace("task: book_endings", "task: by_length").replace("  - metric: acc\n", "")
    (folder / "by_length.yaml").write_text(other)
    (folder / "book_endings.yaml").write_text(text.replace("  - metric: acc_norm\n", ""))
    (folder / "both.yaml").write_text("group: both\ntask: [book_endings, by_length]\n")
    found = evaluate_benchmarks(model, tokenizer, ["both"], folder=folder)
    assert {(score.name, score.metric) for score in found} == {("book_endings", "acc"), ("by_length", "acc_norm")}


def test_only_the_first_questions_and_the_mode_of_the_model_stays(tmp_path, model, tokenizer, questions):
    model.train()
    whole, few = (
        evaluate_benchmarks(model, tokenizer, ["book_endings"], folder=tmp_path / "tasks", limit=limit)
        for limit in (None, 5)
    )
    assert few[0].scores == whole[0].scores[:5]
    assert model.training


def test_mean_and_standard_error():
    score = BenchmarkScore("task", "acc", True, [1.0, 0.0, 1.0, 1.0])
    assert (score.mean, score.standard_error) == (0.75, pytest.approx(0.5 / 2))
    assert math.isnan(BenchmarkScore("task", "acc", True, [1.0]).standard_error)


def test_a_metric_that_is_no_mean_over_questions_is_left_out(tmp_path, model, tokenizer, questions):
    file = tmp_path / "tasks" / "book_endings.yaml"
    file.write_text(file.read_text().replace("metric: acc_norm", "metric: acc_norm\n    aggregation: median"))
    found = evaluate_benchmarks(model, tokenizer, ["book_endings"], folder=tmp_path / "tasks")
    assert [score.metric for score in found] == ["acc"]
    file.write_text(file.read_text().replace("  - metric: acc\n", ""))
    with pytest.raises(ValueError, match="expected a task with a metric that is a mean over questions, got 'book_e"):
        evaluate_benchmarks(model, tokenizer, ["book_endings"], folder=tmp_path / "tasks")


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (
            ["book_ending"],
            {},
            r"expected names of lm_eval's tasks, got \['book_ending'\]; nearest are \['book_endings",
        ),
        (["book_endings"], {"folder": "no/such/folder"}, "expected a folder of lm_eval's YAML files, got 'no/such/f"),
        (["book_endings"], {"limit": 0}, "expected batch_size and limit >= 1, got 8 and 0"),
    ],
    ids=["name", "folder", "limit"],
)
def test_what_cannot_be_run_is_refused(tmp_path, model, tokenizer, questions, names, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate_benchmarks(model, tokenizer, names, **{"folder": tmp_path / "tasks", **options})


def test_the_extra_is_named_where_the_harness_is_missing(monkeypatch, model, tokenizer):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ImportError, match=r"benchmarks need lm_eval, .*: pip install 'ewc_hf\[lm_eval\]'"):
        evaluate_benchmarks(model, tokenizer, ["arc_easy"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared books and model are not beside this checkout")
def test_the_shared_model_knows_how_books_go_on(tmp_path):
    """Better than one in four, by three standard errors."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = SHARED / "models/gpt2-books-5m"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    books = document_texts(load_texts(str(SHARED / "data/books/test.parquet"), max_documents=100), "text", tokenizer)
    write_book_endings(tmp_path / "tasks", books, words=12)
    *_, normalized = evaluate_benchmarks(model, tokenizer, ["book_endings"], folder=tmp_path / "tasks")
    assert len(normalized.scores) == 100
    assert normalized.mean > 0.25 + 3 * normalized.standard_error

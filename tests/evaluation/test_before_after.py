"""The page of before and after, against numbers worked out by hand."""

import dataclasses
import json

import numpy as np
import pytest
from tiny import SENTENCES, tiny_gpt2, tiny_tokenizer

from ewc_hf import evaluate_perplexity
from ewc_hf.evaluation import BenchmarkScore, NllChange, Scores, nll_change, rise_in_words, write_scores

TEXTS = [*SENTENCES, " ".join(SENTENCES)]


def measured(seed, texts=TEXTS):
    return evaluate_perplexity(tiny_gpt2(seed=seed), tiny_tokenizer(), texts, progress=False)


@pytest.fixture(scope="module")
def old():
    return measured(0)


@pytest.fixture(scope="module")
def new():
    return measured(1)


def cells(page, first):
    """Those of the row that begins with this cell."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in line.strip("| ").split("|")]


def test_the_change_is_that_of_the_nll_and_its_interval_is_paired(old, new):
    change = nll_change(old, new)
    assert change.nats == pytest.approx(new.nll - old.nll)
    low, high = change.interval
    assert low < change.nats < high
    shifted = dataclasses.replace(
        old,
        nll=old.nll + 0.5,
        documents=[dataclasses.replace(d, nll_sum=d.nll_sum + 0.5 * d.num_tokens) for d in old.documents],
    )
    assert nll_change(old, shifted).interval == pytest.approx((0.5, 0.5))  # each document by as much


def test_other_tokens_are_refused(old):
    with pytest.raises(ValueError, match="expected documents of the same tokens before and after, got"):
        nll_change(old, measured(0, TEXTS[::-1]))


def test_the_page_tells_what_changed(tmp_path, old, new):
    before = Scores("old", {"books": old}, [BenchmarkScore("quiz", "acc", True, [1.0, 1.0, 0.0, 1.0])])
    after = Scores("new", {"books": new}, [BenchmarkScore("quiz", "acc", True, [1.0, 0.0, 0.0, 0.0])])
    page = write_scores(after, before, tmp_path)
    change = nll_change(old, new)
    low, high = change.interval
    assert cells(page, "books") == [
        "books", f"{old.perplexity:.2f}", f"{new.perplexity:.2f}", f"{change.nats:+.4f} ({low:+.4f} to {high:+.4f})",
    ]  # fmt: skip
    error = np.std([0, -1, 0, -1], ddof=1) / 2  # of the differences, not of either's scores
    assert cells(page, "quiz") == ["quiz", "acc", "4", "0.7500", "0.2500", f"-0.5000 ± {error:.4f}"]
    assert (tmp_path / "evaluation.md").read_text() == page
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert [scores["model"] for scores in record["models"]] == ["old", "new"]
    assert record["models"][1]["texts"]["books"]["nll"] == new.nll
    assert record["models"][1]["benchmarks"][0]["mean"] == 0.25


def test_the_page_of_one_model(tmp_path, old):
    page = write_scores(
        Scores("old", {"books": old}, [BenchmarkScore("quiz", "ppl", False, [2.0, 4.0])]), None, tmp_path
    )
    low, high = old.nll_interval
    assert cells(page, "books") == [
        "books", "4", str(old.num_tokens), f"{old.nll:.4f} ({low:.4f} to {high:.4f})", f"{old.perplexity:.2f}",
        f"{old.bits_per_byte:.4f}",
    ]  # fmt: skip
    assert cells(page, "quiz") == ["quiz", "ppl (lower is better)", "2", "3.0000 ± 1.0000"]
    assert "rise" not in page


def test_a_rise_in_words():
    assert rise_in_words("books", NllChange(0.5, (0.4, 0.6))).startswith(
        "Of books it forgot 0.5000 nats per token: the next token is on average 1.65 times less likely"
    )
    assert "became better, by 0.5000" in rise_in_words("books", NllChange(-0.5, (-0.6, -0.4)))
    assert "no change can be told from chance" in rise_in_words("books", NllChange(0.1, (-0.1, 0.3)))
    assert "has diverged" in rise_in_words("books", NllChange(float("nan"), None))
    assert "it forgot 0.1000" in rise_in_words("books", NllChange(0.1, None))

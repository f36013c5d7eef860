"""Perplexity as a metric: of `Trainer`, which gathers no logits, and of the library `evaluate`, offline."""

import math

import numpy as np
import pytest
import torch
from small_runs import arguments, examples, small_model
from tiny import tiny_gpt2
from transformers import Trainer, default_data_collator

from ewc_hf.evaluation import METRIC, perplexity_metrics, position_nll, token_perplexity


def test_each_label_has_its_loss():
    """As written: the softmax of the position before it."""
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 7), torch.randint(0, 7, (2, 5))
    labels[1, 3:] = -100
    nll = position_nll((logits, "cache"), labels)
    for example in range(2):
        assert nll[example, 0] == 0
        for place in range(1, 5):
            label = labels[example, place]
            expected = 0 if label == -100 else -logits[example, place - 1].log_softmax(-1)[label]
            assert nll[example, place] == pytest.approx(float(expected), abs=1e-6)


def test_of_a_trainer_it_is_the_loss_and_no_logits_are_gathered(tmp_path):
    """The last batch is smaller than the others, and examples have different numbers of labels."""
    model, gathered = small_model(), []

    def compute(evaluated):
        gathered.append(evaluated.predictions.shape)
        return perplexity_metrics(evaluated)

    rows = [{"input_ids": row["input_ids"], "labels": row["labels"].clone()} for row in examples(5)]
    for number, row in enumerate(rows):
        row["labels"][:number] = -100
    trainer = Trainer(
        model=model, args=arguments(tmp_path, per_device_eval_batch_size=2), eval_dataset=rows,
        data_collator=default_data_collator, preprocess_logits_for_metrics=position_nll, compute_metrics=compute,
    )  # fmt: skip
    metrics = trainer.evaluate()
    with torch.no_grad():
        sums = [model.eval()(row["input_ids"][None], labels=row["labels"][None]).loss.item() for row in rows]
    counts = [int((row["labels"][1:] != -100).sum()) for row in rows]
    assert metrics["eval_nll"] == pytest.approx(np.average(sums, weights=counts), rel=1e-6)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(metrics["eval_nll"]))
    assert metrics["eval_num_tokens"] == sum(counts)
    assert gathered == [(5, len(rows[0]["input_ids"]))]


@pytest.mark.filterwarnings("ignore")  # `evaluate`'s own
def test_evaluate_loads_it_offline(monkeypatch, tmp_path, datasets_cache):
    import evaluate

    monkeypatch.setenv("HF_EVALUATE_OFFLINE", "1")
    metric = evaluate.load(METRIC, cache_dir=str(tmp_path), experiment_id="test")
    model = tiny_gpt2().eval()
    labels = [[5, 6, 7, 8], [9, 10]]
    nll = []
    for row in labels:
        ids = torch.tensor([row])
        with torch.no_grad():
            nll.append(position_nll(model(ids).logits, ids)[0].tolist())
    found = metric.compute(predictions=nll, references=labels)
    expected = (sum(nll[0][1:]) + sum(nll[1][1:])) / 4
    assert found["nll"] == pytest.approx(expected, rel=1e-6) and found["num_tokens"] == 4


@pytest.mark.filterwarnings("ignore")
def test_evaluate_refuses_losses_that_are_shifted_already(tmp_path, datasets_cache):
    import evaluate

    metric = evaluate.load(METRIC, cache_dir=str(tmp_path), experiment_id="shifted")
    with pytest.raises(ValueError, match="expected a loss for each label of each example, got other numbers"):
        metric.compute(predictions=[[1.0, 2.0]], references=[[5, 6, 7]])


@pytest.mark.parametrize(
    ("nll", "labels", "message"),
    [
        (
            np.zeros((2, 3, 7)),
            np.zeros((2, 3)),
            "expected a loss for each label, .* pass `preprocess_logits_for_metrics",
        ),
        (np.zeros((2, 3)), np.full((2, 3), -100), "expected a label to predict, got none"),
    ],
)
def test_what_is_no_loss_is_refused(nll, labels, message):
    with pytest.raises(ValueError, match=message):
        token_perplexity(nll, labels)

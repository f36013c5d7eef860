"""Perplexity on retention texts in the evaluations of a trainer."""

from typing import ClassVar

import pytest
from small_runs import Stream, arguments, examples, small_model
from tiny import SENTENCES, tiny_gpt2, tiny_tokenizer
from transformers import TrainerCallback, default_data_collator

from ewc_hf import EWCTrainer, evaluate_perplexity


def retaining(tmp_path, eval_dataset, **options):
    tokenizer, model = tiny_tokenizer(), tiny_gpt2()
    return EWCTrainer(
        model,
        arguments(tmp_path, **options),
        eval_dataset=eval_dataset,
        train_dataset=Stream(),
        processing_class=tokenizer,
        data_collator=default_data_collator,
        retention_texts={"books": SENTENCES},
    )


@pytest.mark.parametrize("several", [False, True], ids=["one dataset", "several datasets"])
def test_evaluation_reads_retention_texts_once_and_callbacks_see_them(tmp_path, several):
    class Seen(TrainerCallback):
        metrics: ClassVar[list] = []

        def on_evaluate(self, *args, metrics, **kwargs):
            self.metrics.append(metrics)

    dataset = examples(4)
    trainer = retaining(tmp_path, {"a": dataset, "b": dataset} if several else dataset)
    trainer.add_callback(Seen())
    metrics = trainer.evaluate()
    expected = evaluate_perplexity(trainer.model, trainer.processing_class, SENTENCES, progress=False)
    assert metrics["eval_books_perplexity"] == pytest.approx(expected.perplexity)
    assert metrics["eval_books_loss"] == pytest.approx(expected.nll)
    assert metrics["eval_books_bits_per_byte"] == pytest.approx(expected.bits_per_byte)
    assert ["eval_books_loss" in seen for seen in Seen.metrics] == ([True, False] if several else [True])
    assert sum("eval_books_loss" in log for log in trainer.state.log_history) == 1


def test_the_best_model_is_not_the_one_that_forgot_most(tmp_path):
    with pytest.raises(ValueError, match="greater_is_better=False for 'books_perplexity'"):
        retaining(tmp_path, examples(4), metric_for_best_model="eval_books_perplexity", eval_strategy="no")
    retaining(tmp_path, examples(4), metric_for_best_model="eval_books_loss")


def test_retention_texts_need_a_tokenizer(tmp_path):
    with pytest.raises(ValueError, match="pass `processing_class=tokenizer`"):
        EWCTrainer(small_model(), arguments(tmp_path), retention_texts={"books": SENTENCES})


class Processor:
    """As those of models that see are: it has a tokenizer, and is none."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer


def test_a_processor_lends_its_tokenizer(tmp_path):
    trainers = [
        EWCTrainer(
            tiny_gpt2(),
            arguments(tmp_path),
            eval_dataset=examples(4),
            processing_class=given,
            data_collator=default_data_collator,
            retention_texts={"books": SENTENCES},
        )
        for given in (tiny_tokenizer(), Processor(tiny_tokenizer()))
    ]
    of_tokenizer, of_processor = (trainer.evaluate()["eval_books_loss"] for trainer in trainers)
    assert of_tokenizer == of_processor


def test_a_tokenizer_that_cannot_tell_where_its_tokens_are_is_refused_at_once(tmp_path, monkeypatch):
    tokenizer = tiny_tokenizer()
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(ValueError, match=r"expected a fast tokenizer for retention_texts, got .*Token"):
        EWCTrainer(tiny_gpt2(), arguments(tmp_path), processing_class=tokenizer, retention_texts={"books": SENTENCES})


def test_another_prefix_is_the_retention_texts_too_and_a_prediction_reads_none(tmp_path):
    dataset = examples(4)
    trainer = retaining(tmp_path, dataset)
    metrics = trainer.evaluate(metric_key_prefix="test")
    assert metrics["test_books_loss"] > 0 and "eval_books_loss" not in metrics
    assert not any("books" in key for key in trainer.predict(dataset).metrics)
    assert "eval_books_loss" in trainer.evaluate()

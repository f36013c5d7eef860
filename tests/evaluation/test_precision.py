"""A model is measured in the precision of its weights, however it is trained."""

import logging

import pytest
import torch
from largest_tensor import LargestTensor
from measured_texts import letters, measure
from small_runs import Stream, arguments, examples
from tiny import SENTENCES, VOCABULARY, tiny_gpt2, tiny_tokenizer
from transformers import TrainerCallback, default_data_collator

from ewc_hf import EWCTrainer
from ewc_hf.data import logits
from ewc_hf.evaluation import retention


def bf16_trainer(folder, model, **options):
    return EWCTrainer(
        model,
        arguments(folder, **{"bf16": True, "max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, **options}),
        train_dataset=Stream(),
        eval_dataset=examples(4),
        processing_class=tiny_tokenizer(),
        data_collator=default_data_collator,
        retention_texts={"books": SENTENCES},
    )


def test_retention_texts_are_measured_in_float32_before_during_and_after_mixed_precision(tmp_path):
    class Copies(TrainerCallback):
        def __init__(self, metrics):
            self.measured, self.expected = metrics, []

        def on_evaluate(self, args, state, control, model, metrics, **kwargs):
            own = tiny_gpt2()
            own.load_state_dict(model.state_dict())
            self.measured.append(metrics["eval_books_loss"])
            self.expected.append(measure(own, tiny_tokenizer(), SENTENCES, window=None).nll)

    trainer, seen = bf16_trainer(tmp_path, tiny_gpt2()), Copies([])
    trainer.add_callback(seen)
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()
    assert len(seen.measured) == 4
    assert seen.measured == pytest.approx(seen.expected, rel=1e-6)


@pytest.mark.parametrize("trainers", [1, 2])
def test_a_model_that_was_trained_in_mixed_precision_costs_what_its_weights_do(tmp_path, trainers):
    """The second trainer's accelerator wraps the forward of the first's."""
    model = tiny_gpt2()
    for number in range(trainers):
        bf16_trainer(tmp_path / str(number), model, eval_strategy="no").train()
        vars(model).pop("_is_accelerate_prepared")
    wrapped = model.forward
    own = tiny_gpt2()
    own.load_state_dict(model.state_dict())
    texts, tokenizer = [letters(40)], tiny_tokenizer()
    assert measure(model, tokenizer, texts).nll == pytest.approx(measure(own, tokenizer, texts).nll, rel=1e-6)
    assert model.forward == wrapped


def test_autocast_around_the_call_is_off():
    model, tokenizer, texts = tiny_gpt2(), tiny_tokenizer(), [letters(40)]
    with torch.autocast("cpu", torch.bfloat16):
        result = measure(model, tokenizer, texts)
    assert result == measure(model, tokenizer, texts)


def test_a_replicated_model_costs_what_the_model_does():
    model, tokenizer, texts = tiny_gpt2(), tiny_tokenizer(), [letters(40)]
    assert measure(torch.nn.DataParallel(model), tokenizer, texts) == measure(model, tokenizer, texts)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_result_names_its_precision(dtype):
    result = measure(tiny_gpt2(dtype=dtype), tiny_tokenizer(), [letters(9)])
    assert result.precision == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(("dtype", "warned"), [(torch.bfloat16, True), (torch.float32, False)])
def test_weights_of_half_precision_are_told_of(tmp_path, caplog, dtype, warned):
    retention.logger.warning_once.cache_clear()
    trainer = bf16_trainer(tmp_path, tiny_gpt2(dtype=dtype), bf16=False)
    with caplog.at_level(logging.WARNING):
        trainer.evaluate()
    assert ("measured in bfloat16" in caplog.text) is warned


def test_logits_of_half_precision_are_never_all_in_float32(monkeypatch):
    monkeypatch.setattr(logits, "_PIECE", 4 * VOCABULARY)
    model, texts = tiny_gpt2(dtype=torch.bfloat16), [letters(200)]
    with LargestTensor(torch.float32) as largest:
        measure(model, tiny_tokenizer(), texts, window=16, batch_size=8)
    assert largest.numel <= max(4 * VOCABULARY, 8 * 16 * 16), "a piece of logits, or the model's own norms"


def test_nor_where_accelerate_would_widen_them(tmp_path, monkeypatch):
    """Its wrapper of the forward converts what a model of half precision returns."""
    monkeypatch.setattr(logits, "_PIECE", 4 * VOCABULARY)
    model, texts = tiny_gpt2(dtype=torch.bfloat16), [letters(200)]
    expected = measure(model, tiny_tokenizer(), texts, window=16, batch_size=8)
    bf16_trainer(tmp_path, model).accelerator.prepare_model(model, evaluation_mode=True)
    with LargestTensor(torch.float32) as largest:
        assert measure(model, tiny_tokenizer(), texts, window=16, batch_size=8) == expected
    assert largest.numel < 8 * 16 * VOCABULARY

"""A trainer in whose steps rows cannot ride stops, and neither its model nor its accelerator is changed after."""

import logging

import pytest
import torch
from rehearsed import answered, texts
from small_runs import arguments
from tiny import tiny_gpt2
from transformers import Trainer

from ewc_hf import EWCMixin


class OwnBackward(Trainer):
    """Goes backward by itself, as trainers without an accelerator do."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = model(**inputs).loss
        loss.backward()
        return loss.detach()


class NoForward(Trainer):
    """Trains on something else than what the model answers."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = sum(p.square().sum() for p in model.parameters())
        self.accelerator.backward(loss)
        return loss.detach()


class Failing(Trainer):
    """Fails after the model's forward pass."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        super().compute_loss(model, inputs, *args, **kwargs)
        raise ZeroDivisionError


def trainer_of(folder, kind, model=None, columns=("input_ids", "labels"), **options):
    rows = [{key: torch.ones(9, dtype=torch.long) for key in columns}] * 8
    return type("Held", (EWCMixin, kind), {})(
        tiny_gpt2() if model is None else model,
        arguments(folder, **{"max_steps": 1, **options}),
        train_dataset=rows,
        rehearsal=answered(texts(5, 12, 9)),
    )


CASES = {
    "own backward": (
        OwnBackward,
        {},
        "expected each training step to hand its loss to `Accelerator.backward`, .* got a step of Held without; train",
    ),
    "no forward": (NoForward, {}, "expected a forward pass of the model with gradients in each training step"),
    "packed": (
        Trainer,
        {"columns": ("input_ids", "labels", "position_ids")},
        "expected batches of .* position_ids of",
    ),
}


@pytest.mark.parametrize(("kind", "options", "message"), CASES.values(), ids=CASES)
def test_steps_that_rows_cannot_ride_in_are_refused(tmp_path, kind, options, message):
    with pytest.raises(ValueError, match=message):
        trainer_of(tmp_path, kind, **options).train()


@pytest.mark.parametrize(("kind", "error"), [(Failing, ZeroDivisionError), (NoForward, ValueError)])
def test_an_error_leaves_nothing_behind(tmp_path, kind, error):
    trainer = trainer_of(tmp_path, kind)
    backward = trainer.accelerator.backward
    with pytest.raises(error):
        trainer.train()
    assert trainer.accelerator.backward == backward
    assert not trainer.model._forward_hooks and not trainer.model._forward_pre_hooks


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize(("factor", "told"), [(1.0, False), (3.0, True)])
def test_how_far_the_first_step_is_from_the_answers_is_told_per_position(tmp_path, caplog, accumulation, factor, told):
    """However many micro-batches a step has."""
    model = tiny_gpt2()
    model.lm_head.weight.data.mul_(factor)
    trainer = trainer_of(tmp_path, Trainer, model, gradient_accumulation_steps=accumulation)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    (kl,) = [entry["rehearsal_kl"] for entry in trainer.state.log_history if "rehearsal_kl" in entry]
    assert ("another model gave them" in caplog.text) is told
    assert not told or 1 < kl < 4

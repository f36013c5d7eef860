"""What is frozen and unfrozen after a trainer was built: all that moves is held, or it is refused."""

import pytest
import torch
from small_runs import Stream, arguments, examples, small_model, spread_consolidation, weights
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR
from transformers import TrainerCallback

from ewc_hf import EWCTrainer, estimate_importance
from ewc_hf.penalty import PenaltyRecord

ATTENTION = "transformer.h.0.attn.c_attn.weight"


def trainer_of(folder, model, consolidation, optimizer=None, callbacks=(), schedule=None, **options):
    return EWCTrainer(
        model,
        arguments(folder, **{"ewc_lambda": 1e3, **options}),
        consolidation=consolidation,
        train_dataset=Stream(),
        optimizers=(optimizer, schedule),
        callbacks=list(callbacks),
    )


def estimated(model):
    return estimate_importance(model, examples(8), num_examples=8, progress=False)


@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
def test_weights_that_were_unfrozen_since_are_held(tmp_path, coupling):
    """The importance is one whose anchor is the model's own weights."""
    always, later = small_model(), small_model()
    trainer_of(tmp_path, always, estimated(always), ewc_coupling=coupling).train()
    consolidation = estimated(later)
    later.get_parameter(ATTENTION).requires_grad_(False)
    trainer = trainer_of(tmp_path, later, consolidation, ewc_coupling=coupling)
    later.get_parameter(ATTENTION).requires_grad_(True)
    trainer.train()
    for name, weight in weights(always).items():
        assert torch.equal(weights(later)[name], weight), name


def test_weights_may_be_frozen_between_two_trainings(tmp_path):
    model = small_model()
    trainer = trainer_of(tmp_path, model, spread_consolidation(model))
    trainer.train()
    frozen = model.get_parameter(ATTENTION).requires_grad_(False)
    model.zero_grad()
    before = weights(model), frozen.clone()
    trainer.train()
    assert torch.equal(frozen, before[1])
    assert not any(torch.equal(weights(model)[name], weight) for name, weight in before[0].items())


def test_weights_of_which_a_training_let_go_are_refused(tmp_path):
    model = small_model()
    model.get_parameter(ATTENTION).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters())
    trainer = trainer_of(tmp_path, model, spread_consolidation(model), optimizer, ewc_state_dtype="bfloat16")
    trainer.train()
    trainer.train()
    model.get_parameter(ATTENTION).requires_grad_(True)
    with pytest.raises(ValueError, match=f"kept nothing of others in memory, got '{ATTENTION}' unfrozen since"):
        trainer.train()


@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
@pytest.mark.parametrize("is_added", [False, True], ids=["in the optimizer", "added to the optimizer"])
def test_weights_that_are_unfrozen_during_a_training_are_refused(tmp_path, coupling, is_added):
    model = small_model()
    parameter = model.get_parameter(ATTENTION).requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad or not is_added])

    class Unfreezes(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                parameter.requires_grad_(True)
                if is_added:
                    optimizer.add_param_group({"params": [parameter], "lr": 1e-2, "initial_lr": 1e-2})

    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    trainer = trainer_of(
        tmp_path, model, spread_consolidation(model), optimizer, [Unfreezes()], constant, ewc_coupling=coupling
    )
    with pytest.raises(ValueError, match=f"got '{ATTENTION}' besides, which would move freely"):
        trainer.train()
    assert trainer.state.global_step == 2


def test_each_trial_of_a_search_may_freeze_what_it_likes(tmp_path):
    def model_init(trial):
        model = small_model()
        if trial is not None:
            model.get_parameter(ATTENTION).requires_grad_(False)
        return model

    trainer = EWCTrainer(
        model_init=model_init,
        args=arguments(tmp_path, ewc_lambda=1.0),
        consolidation=spread_consolidation(small_model()),
        train_dataset=Stream(),
    )
    trainer.train(trial={"frozen": True})
    assert torch.equal(trainer.model.get_parameter(ATTENTION), small_model().get_parameter(ATTENTION))
    trainer.train()
    assert not torch.equal(trainer.model.get_parameter(ATTENTION), small_model().get_parameter(ATTENTION))


def scheduled(folder, schedule):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    given = spread_consolidation(model)
    trainer = trainer_of(
        folder, model, given, optimizer, (), schedule(optimizer), ewc_coupling="loss", max_grad_norm=0
    )
    trainer.train()
    return trainer.state.stateful_callbacks[PenaltyRecord.__name__]["attributes"]["penalty"]


def test_alpha_is_the_peak_of_a_schedule_that_rises(tmp_path, caplog):
    record = scheduled(tmp_path, lambda optimizer: OneCycleLR(optimizer, max_lr=0.05, total_steps=5))
    assert record["peak_learning_rates"] == [0.05]
    assert "above the alpha" not in caplog.text


def test_a_learning_rate_above_alpha_is_told(tmp_path, caplog):
    scheduled(tmp_path, lambda optimizer: CyclicLR(optimizer, base_lr=1e-4, max_lr=1e-3, step_size_up=4))
    assert "is above the alpha of the stabilization, 0.0001: steps may overshoot the anchor" in caplog.text

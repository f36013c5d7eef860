"""A resumed run goes on with the penalty of its checkpoint, or the user has said that it may not."""

import json
import logging

import pytest
import torch
from conftest import consolidation_of
from small_runs import LR, arguments, examples, small_model, spread_consolidation, weights
from transformers import AutoModelForCausalLM, Trainer

from ewc_hf import EWCConfig, EWCTrainer, l2_to_start

TRAINED = {"ewc_coupling": "loss", "ewc_lambda": 3.0, "ewc_alpha": 0.1}
CHANGES = {
    "lambda": ({"ewc_lambda": 30.0}, "ewc_lambda 30.0, not 3.0"),
    "lambda 0": ({"ewc_lambda": 0.0}, "none"),
    "coupling": ({"ewc_coupling": "decoupled"}, "ewc_coupling decoupled, not loss"),
    "alpha": ({"ewc_alpha": 0.2}, "alpha 0.2, not 0.1"),
    "alpha by default": ({"ewc_alpha": None}, "alpha peak learning rate, not 0.1"),
    "plain": ({"ewc_stabilized": False}, "alpha 0.0, not 0.1"),
}


def trainer_of(folder, consolidation="spread", kind=EWCConfig, **options):
    model = small_model()
    given = {"spread": spread_consolidation, "l2": l2_to_start, None: lambda model: None}[consolidation](model)
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, **options}
    return EWCTrainer(model, arguments(folder, kind, **options), consolidation=given, train_dataset=examples())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trainer_of(folder, **TRAINED).train()
    return str(folder / "checkpoint-3")


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_another_penalty_is_refused_unless_it_is_allowed(tmp_path, checkpoint, change, message):
    with pytest.raises(
        ValueError, match=f"penalty that the checkpoint was trained with, got {message}; pass the same"
    ):
        trainer_of(tmp_path, **{**TRAINED, **change}).train(resume_from_checkpoint=checkpoint)
    allowed = trainer_of(tmp_path, **{**TRAINED, **change}, ewc_allow_change=True)
    allowed.train(resume_from_checkpoint=checkpoint)
    assert allowed.state.global_step == 6


@pytest.mark.parametrize(("consolidation", "options"), [("spread", {"ewc_lambda": 0.0}), (None, {})])
def test_a_run_that_dropped_its_penalty_is_not_asked_for_it_again(tmp_path, checkpoint, consolidation, options):
    options = {**TRAINED, **options}
    dropped = trainer_of(tmp_path, consolidation, **options, ewc_allow_change=True)
    dropped.train(resume_from_checkpoint=checkpoint)
    resumed = trainer_of(tmp_path, consolidation, **options, max_steps=9)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert resumed.state.global_step == 9


@pytest.mark.parametrize("resume", ["by path", "the last"])
@pytest.mark.parametrize("consolidation", [None, "l2"])
def test_another_consolidation_or_none_is_refused(tmp_path, checkpoint, consolidation, resume):
    trainer = trainer_of(tmp_path, consolidation, **TRAINED)
    if resume == "the last":
        trainer.args.output_dir = checkpoint.rpartition("/")[0]
    with pytest.raises(ValueError, match="penalty that the checkpoint was trained with, got"):
        trainer.train(resume_from_checkpoint=checkpoint if resume == "by path" else True)


@pytest.mark.parametrize("begins", ["in memory", "from the folder"])
def test_a_bfloat16_model_is_resumed_whichever_way_its_consolidation_comes(tmp_path, begins):
    """The folder's checkpoint is in float32; to weights in bfloat16 both anchors are the same numbers."""
    small_model().float().save_pretrained(tmp_path / "checkpoint")
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, **TRAINED}

    def trainer_from(folder, way):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", dtype=torch.bfloat16)
        made = consolidation_of(model)
        made.save_pretrained(tmp_path / "checkpoint")
        given = made if way == "in memory" else tmp_path / "checkpoint"
        return EWCTrainer(model, arguments(folder, **options), consolidation=given, train_dataset=examples())

    ways = {"in memory": "from the folder", "from the folder": "in memory"}
    whole = trainer_from(tmp_path / "whole", begins)
    whole.train()
    resumed = trainer_from(tmp_path / "resumed", ways[begins])
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-3"))
    expected = weights(whole.model)
    assert all(torch.equal(p, expected[name]) for name, p in weights(resumed.model).items())


def test_a_stock_checkpoint_gets_a_warning(tmp_path, caplog):
    model, args = small_model(), arguments(tmp_path, max_steps=3, save_strategy="steps", save_steps=3)
    Trainer(model, args, train_dataset=examples()).train()
    trainer = trainer_of(tmp_path, **TRAINED)
    with caplog.at_level(logging.WARNING):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert "trained without this penalty, which acts from here on" in caplog.text
    recorded = json.loads((tmp_path / "checkpoint-6/trainer_state.json").read_text())["stateful_callbacks"]
    assert recorded["PenaltyRecord"]["attributes"]["penalty"]["ewc_lambda"] == 3.0


def test_callbacks_are_restored_without_a_word_and_to_the_same_bits(tmp_path, checkpoint, caplog):
    whole = trainer_of(tmp_path / "whole", **TRAINED)
    whole.train()
    restoring = trainer_of(tmp_path / "resumed", **TRAINED, restore_callback_states_from_checkpoint=True)
    with caplog.at_level(logging.WARNING):
        restoring.train(resume_from_checkpoint=checkpoint)
    assert "callbacks not included" not in caplog.text
    expected = weights(whole.model)
    assert all(torch.equal(p, expected[name]) for name, p in weights(restoring.model).items())
    recorded = json.loads((tmp_path / "resumed/checkpoint-6/trainer_state.json").read_text())["stateful_callbacks"]
    assert recorded["PenaltyRecord"]["attributes"]["penalty"]["ewc_lambda"] == 3.0


def test_alpha_stays_the_peak_learning_rate_that_the_run_began_with(tmp_path):
    """Where the optimizer is not saved, what its learning rates were is told by the record alone."""
    options = {"ewc_coupling": "loss", "ewc_lambda": 3.0, "save_only_model": True}
    trainer_of(tmp_path / "run", **options).train()
    resumed = trainer_of(tmp_path / "resumed", **options, learning_rate=1.0)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-3"))
    recorded = json.loads((tmp_path / "resumed/checkpoint-6/trainer_state.json").read_text())["stateful_callbacks"]
    assert recorded["PenaltyRecord"]["attributes"]["penalty"]["peak_learning_rates"] == [LR, LR]


def test_a_run_that_begins_anew_may_change_everything(tmp_path):
    trainer = trainer_of(tmp_path, **TRAINED)
    trainer.train()
    trainer.args.ewc_lambda = 30.0
    trainer.train()
    assert trainer.state.global_step == 6

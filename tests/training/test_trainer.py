"""Real training runs on a tiny float64 model: with the penalty, and as if there were none."""

import hashlib
import json
import shutil
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from small_runs import STEPS, Stream, arguments, examples, small_model, spread_consolidation, weights
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from ewc_hf import EWCFields, EWCMixin, EWCTrainer, l2_to_start


@pytest.fixture
def model():
    return small_model()


@pytest.fixture
def consolidation(model):
    return spread_consolidation(model)


def run(trainer_class, model, args, **more):
    """Train a copy of the model and return what can be compared: weights, logs, callbacks and files, which then go."""
    set_seed(args.seed)
    copy = deepcopy(model)
    trainer = trainer_class(copy, args, train_dataset=examples(), eval_dataset=examples(4), **more)
    trainer.train()
    logs = [
        {k: v for k, v in log.items() if "runtime" not in k and "per_second" not in k}
        for log in trainer.state.log_history
    ]
    callbacks = [type(callback) for callback in trainer.callback_handler.callbacks]
    files = {
        str(path.relative_to(args.output_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(args.output_dir).rglob("*"))
        if path.is_file()
    }
    shutil.rmtree(args.output_dir)
    random_state = torch.get_rng_state()
    return weights(copy), logs, callbacks, files, random_state


@pytest.mark.parametrize("case", ["no consolidation", "lambda 0"])
def test_without_a_penalty_it_is_the_trainer_bit_for_bit(tmp_path, model, consolidation, case):
    args = arguments(tmp_path, ewc_lambda=0.0 if case == "lambda 0" else 5.0, save_strategy="steps", save_steps=2)
    expected = run(Trainer, model, args)
    more = {"consolidation": consolidation} if case == "lambda 0" else {}
    got = run(EWCTrainer, model, args, **more)
    assert any("checkpoint-2" in name for name in expected[3])
    for name in expected[0]:
        assert torch.equal(expected[0][name], got[0][name])
    assert expected[1] == got[1]
    waiting = ["_TrainingBegins", "HeldProgress"] if case == "lambda 0" else []  # for a lambda that a search may set
    assert [kind.__name__ for kind in got[2]] == [*(kind.__name__ for kind in expected[2]), *waiting]
    assert {name for name in expected[3] if expected[3][name] != got[3].get(name)} == set()
    assert expected[3].keys() == got[3].keys()
    assert torch.equal(expected[4], got[4])


def test_evaluation_loss_is_without_the_penalty(tmp_path, model, consolidation):
    args = arguments(tmp_path, ewc_coupling="loss", ewc_lambda=1e4, max_steps=1, eval_strategy="steps", eval_steps=1)
    trainer = EWCTrainer(model, args, consolidation=consolidation, train_dataset=Stream(), eval_dataset=examples(4))
    trainer.train()
    (during,) = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    assert during == Trainer(model, args, eval_dataset=examples(4)).evaluate()["eval_loss"]


@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
def test_logs_carry_the_penalty_at_logging_steps_only(tmp_path, model, consolidation, coupling):
    args = arguments(tmp_path, ewc_coupling=coupling, ewc_lambda=3.0, logging_steps=STEPS)
    trainer = EWCTrainer(model, args, consolidation=consolidation, train_dataset=Stream())
    trainer.train()
    alpha = args.learning_rate if coupling == "loss" else 0
    penalty = forgetting = 0.0
    for name, p in model.named_parameters():
        omega, moved = consolidation.importance[name], (p.detach() - consolidation.anchor[name]) ** 2
        penalty += (3.0 / 2 * omega / (1 + alpha * 3.0 * omega) * moved).sum().item()
        forgetting += (omega * moved).sum().item() / 2
    logged = [log for log in trainer.state.log_history if "ewc_penalty" in log]
    assert len(logged) == 1 and "loss" in logged[0]
    assert logged[0]["ewc_penalty"] == pytest.approx(penalty, rel=1e-10)
    assert logged[0]["ewc_predicted_forgetting"] == pytest.approx(forgetting, rel=1e-10)


class Talker(TrainerCallback):
    """Logs a loss of its own before each step, and asks late for the training's own after the first."""

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer.log({"loss": -1.0})

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log = control.should_log or state.global_step == 1
        return control


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_only_the_trainings_own_logs_carry_the_penalty(tmp_path, model, consolidation, strategy):
    """Its value takes all processes, and anybody may call `log` in one of them."""
    args = arguments(tmp_path, max_steps=-1, num_train_epochs=1, logging_strategy=strategy, logging_steps=3)
    trainer, talker = EWCTrainer(model, args, consolidation=consolidation, train_dataset=examples(8)), Talker()
    talker.trainer = trainer
    trainer.add_callback(talker)
    trainer.train()
    trainer.log({"loss": -1.0})
    logged = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["step"] for log in logged if log["loss"] >= 0] == {"steps": [1, 3], "epoch": [1, 4]}[strategy]
    assert all(("ewc_penalty" in log) == (log["loss"] >= 0) for log in logged)
    assert sum(log["loss"] < 0 for log in logged) == STEPS + 1


def test_only_an_importance_in_nats_predicts_forgetting(tmp_path, model):
    args = arguments(tmp_path, ewc_lambda=30.0)
    trainer = EWCTrainer(model, args, consolidation=l2_to_start(model), train_dataset=Stream())
    trainer.train()
    assert "ewc_penalty" in trainer.state.log_history[0]
    assert "ewc_predicted_forgetting" not in trainer.state.log_history[0]


def test_a_unit_without_a_default_of_lambda_is_refused_before_training(tmp_path, model):
    with pytest.raises(ValueError, match="expected ewc_lambda for an importance in 'squared weight', got None"):
        EWCTrainer(model, arguments(tmp_path), consolidation=l2_to_start(model))


@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, model, consolidation, coupling):
    def trained(folder, resume=None):
        args = arguments(
            tmp_path / folder, ewc_coupling=coupling, ewc_lambda=3.0, max_steps=6, save_strategy="steps", save_steps=3
        )
        copy = deepcopy(model)
        trainer = EWCTrainer(copy, args, consolidation=consolidation, train_dataset=examples())
        trainer.train(resume_from_checkpoint=resume)
        return weights(copy)

    whole = trained("whole")
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    resumed = trained("resumed", str(checkpoint))
    for name in whole:
        assert torch.equal(whole[name], resumed[name])
    states = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]
    recorded = states["PenaltyRecord"]["attributes"]["penalty"]
    assert recorded["anchor"] == consolidation.metadata["anchor"]["fingerprint"]
    assert not list(tmp_path.rglob("ewc_*"))


def test_resuming_with_another_consolidation_is_refused(tmp_path, model, consolidation):
    args = arguments(tmp_path, save_strategy="steps", save_steps=3, ewc_lambda=30.0)
    EWCTrainer(model, args, consolidation=consolidation, train_dataset=Stream()).train()
    other = EWCTrainer(model, args, consolidation=l2_to_start(model), train_dataset=Stream())
    with pytest.raises(ValueError, match="pass the same one to resume"):
        other.train(resume_from_checkpoint=True)


def test_training_twice_couples_once(tmp_path, model, consolidation):
    args = arguments(tmp_path, ewc_coupling="decoupled", ewc_lambda=3.0)
    trainer = EWCTrainer(model, args, consolidation=consolidation, train_dataset=Stream())
    trainer.train()
    assert not trainer.optimizer.optimizer._optimizer_step_post_hooks
    trainer.train()
    assert trainer._penalty is None


def test_it_takes_plain_arguments_and_a_folder(tmp_path, model, consolidation):
    consolidation.save_pretrained(tmp_path / "consolidation")
    args = TrainingArguments(
        str(tmp_path), max_steps=1, logging_steps=1, use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False
    )
    trainer = EWCTrainer(model, args, consolidation=tmp_path / "consolidation", train_dataset=Stream())
    trainer.train()
    assert trainer.state.log_history[0]["ewc_penalty"] > 0


class EWCSeq2SeqTrainer(EWCMixin, Seq2SeqTrainer):
    """Another trainer with the penalty."""


def test_it_mixes_into_other_trainers(tmp_path, model, consolidation):
    args = EWCSeq2SeqConfig(
        str(tmp_path), ewc_lambda=1e300, max_steps=1, use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False
    )
    EWCSeq2SeqTrainer(model, args, consolidation=consolidation, train_dataset=Stream()).train()
    important = consolidation.importance["transformer.wpe.weight"] > 0
    anchor = consolidation.anchor["transformer.wpe.weight"]
    assert torch.equal(model.transformer.wpe.weight[important], anchor[important])


@dataclass
class EWCSeq2SeqConfig(EWCFields, Seq2SeqTrainingArguments):
    """Its options."""


def test_an_optimizer_that_steps_no_weight_is_refused(tmp_path, model, consolidation):
    stray = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    args = arguments(tmp_path, ewc_coupling="loss")
    trainer = EWCTrainer(model, args, consolidation=consolidation, train_dataset=Stream(), optimizers=(stray, None))
    with pytest.raises(ValueError, match="expected an optimizer that steps weights of the consolidation, got SGD"):
        trainer.train()


def test_sharding_engines_are_refused(tmp_path, model, consolidation):
    class Sharded(EWCTrainer):
        def create_accelerator_and_postprocess(self):
            super().create_accelerator_and_postprocess()
            self.is_fsdp_enabled = True

    with pytest.raises(ValueError, match="expected FSDP of version 2, got version 1"):
        Sharded(model, arguments(tmp_path), consolidation=consolidation, train_dataset=Stream())

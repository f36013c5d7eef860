"""Runs with rehearsal that go on from a checkpoint."""

import json
import logging

import pytest
import torch
from datasets import Dataset
from killed_run import trainer_of
from tiny import VOCABULARY, tiny_gpt2
from transformers import TrainerCallback

from ewc_hf.rehearsal import Rehearsal, answer_rehearsal


@pytest.fixture(scope="module")
def rehearsal():
    return rows_of(seed=4)


def rows_of(seed):
    draws = torch.Generator().manual_seed(seed)
    rows = [{"input_ids": torch.randint(0, VOCABULARY, (11,), generator=draws).tolist()} for _ in range(5)]
    return answer_rehearsal(tiny_gpt2(), rows, progress=False)


def other_draws(rehearsal):
    """Made with the same options on another machine, say."""
    rows = rehearsal.rows.with_format(None).to_dict()
    rows["rest"] = [[mass + 1e-6 for mass in of_row] for of_row in rows["rest"]]
    return Rehearsal(Dataset.from_dict(rows, features=rehearsal.rows.features), rehearsal.metadata)


class Stop(TrainerCallback):
    """Ends the run after its fourth step."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 4


def trained(folder, rehearsal, resume=None, callback=None, **options):
    options = {"ewc_lambda": 0.0, "gradient_accumulation_steps": 2, "rehearsal_rows": 2, "logging_steps": 1, **options}
    trainer = trainer_of(folder, options, callback, rehearsal)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def numbers(trainer):
    logs = [entry["rehearsal_kl"] for entry in trainer.state.log_history if "rehearsal_kl" in entry]
    return [p.detach() for p in trainer.model.parameters()], logs


@pytest.mark.parametrize("ewc_lambda", [0.0, 3.0], ids=["alone", "with the penalty"])
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(tmp_path, rehearsal, ewc_lambda):
    whole, kls = numbers(trained(tmp_path / "whole", rehearsal, ewc_lambda=ewc_lambda))
    trained(tmp_path / "stopped", rehearsal, callback=Stop(), ewc_lambda=ewc_lambda)
    resumed, resumed_kls = numbers(trained(tmp_path / "stopped", rehearsal, resume=True, ewc_lambda=ewc_lambda))
    assert all(map(torch.equal, whole, resumed))
    assert len(kls) == 8 and resumed_kls == kls


@pytest.mark.parametrize(
    ("given", "options", "got"),
    [
        (None, {}, "none"),
        ("the same", {"rehearsal_weight": 2.0}, "rehearsal_weight 2.0, not 1.0"),
        ("the same", {"rehearsal_rows": 1}, "rehearsal_rows 1, not 2"),
        ("others", {}, "digest "),
        ("other answers", {}, "digest "),
    ],
    ids=["none", "another weight", "fewer rows", "other rows", "rows answered anew, with other draws"],
)
def test_a_resumed_run_does_not_change_its_rehearsal_without_a_word(tmp_path, rehearsal, given, options, got):
    trained(tmp_path, rehearsal, callback=Stop())
    rows = {"the same": rehearsal, "others": rows_of(seed=5), "other answers": other_draws(rehearsal)}.get(given)
    with pytest.raises(ValueError, match=f"expected the rehearsal that the checkpoint was trained with, got .*{got}"):
        trained(tmp_path, rows, resume=True, **options)
    again = trained(tmp_path, rows, resume=True, ewc_allow_change=True, **options)
    assert again.state.global_step == 8
    recorded = json.loads((tmp_path / "checkpoint-8/trainer_state.json").read_text())["stateful_callbacks"]
    assert ("RehearsalRecord" in recorded) == (given is not None)
    if given is not None:
        rehearsed = recorded["RehearsalRecord"]["attributes"]["rehearsal"]
        assert rehearsed["rehearsal_rows"] == options.get("rehearsal_rows", 2)


def test_a_run_may_take_up_rehearsal(tmp_path, rehearsal, caplog):
    trained(tmp_path, None, callback=Stop())
    with caplog.at_level(logging.WARNING):
        trainer = trained(tmp_path, rehearsal, resume=True)
    assert "trained without this rehearsal, which begins here" in caplog.text
    assert len(numbers(trainer)[1]) == 4


def test_weight_and_rows_are_those_in_force_when_training_begins(tmp_path, rehearsal):
    """As in a search for hyperparameters, which sets them between runs."""
    trainer = trained(tmp_path, rehearsal, rehearsal_weight=0.0)
    assert numbers(trainer)[1] == []
    kls = []
    for trainer.args.rehearsal_weight, trainer.args.rehearsal_rows in ((2.0, 3), (20.0, 3), (20.0, 1), (0.0, 1)):
        trainer.optimizer = None
        trainer.model.load_state_dict(tiny_gpt2().state_dict())
        trainer.train()
        kls.append(numbers(trainer)[1])
    assert [len(of_run) for of_run in kls] == [8, 8, 8, 0]
    assert kls[0][-1] > kls[1][-1]
    assert kls[1] != kls[2]

"""A trainer holds a consolidation once: what it was given in memory goes when its penalty holds less or elsewhere."""

import gc
from copy import deepcopy

import pytest
import torch
from small_runs import Stream, arguments, small_model, spread_consolidation, weights
from transformers import TrainerCallback

from ewc_hf import EWCTrainer

HELD = {"bfloat16": {"ewc_state_dtype": "bfloat16"}, "offloaded": {"ewc_offload": True}}
OPTIONS = {**HELD, "both": {"ewc_state_dtype": "bfloat16", "ewc_offload": True}}


def tensor_bytes():
    """Of all tensors that are alive in this process."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


class Weigher(TrainerCallback):
    """Notes how much is alive after a step."""

    def on_step_end(self, args, state, control, **kwargs):
        self.measured = tensor_bytes()


def trainer_of(folder, consolidation, **options):
    """Weights in float32, which anchors in float64 are converted for."""
    args = arguments(folder, ewc_lambda=3.0, **options)
    return EWCTrainer(
        model_init=lambda: small_model().float(), args=args, consolidation=consolidation, train_dataset=Stream()
    )


def trained(trainer):
    trainer.train()
    return weights(trainer.model)


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in b)


@pytest.fixture
def folder(tmp_path):
    spread_consolidation(small_model()).save_pretrained(tmp_path / "consolidation")
    return tmp_path / "consolidation"


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_consolidation_in_memory_takes_no_more_than_a_stored_one(tmp_path, folder, options):
    alive = []
    for in_memory in (False, True):
        given = spread_consolidation(small_model()) if in_memory else folder
        trainer, weigher = trainer_of(tmp_path, given, **options), Weigher()
        del given
        trainer.add_callback(weigher)
        before = tensor_bytes()
        trainer.train()
        alive.append((before, weigher.measured))
        trainer = None
    stored, in_memory = alive
    whole = sum(16 * p.numel() for p in small_model().parameters())
    assert in_memory[0] - stored[0] == pytest.approx(whole, rel=0.01)
    assert in_memory[1] - stored[1] == pytest.approx(0, abs=0.01 * whole)


def test_the_users_own_consolidation_stays_as_it_was(tmp_path):
    given = spread_consolidation(small_model())
    before = deepcopy(given)
    trainer_of(tmp_path, given, **OPTIONS["both"]).train()
    assert same(given.importance, before.importance)
    assert same(given.anchor, before.anchor)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_later_training_goes_on_from_what_is_held(tmp_path, folder, options):
    """As the trials of a hyperparameter search do."""
    expected = trained(trainer_of(tmp_path, folder, **options))
    trainer = trainer_of(tmp_path, spread_consolidation(small_model()), **options)
    assert all(same(trained(trainer), expected) for _ in range(3))
    trainer.args.ewc_lambda = 30.0
    assert not same(trained(trainer), expected)


def test_a_later_training_is_resumed(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 2, **OPTIONS["both"]}
    trainer = trainer_of(tmp_path, spread_consolidation(small_model()), **saving)
    expected = trained(trainer)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert same(weights(trainer.model), expected)


@pytest.mark.parametrize("first", [{"ewc_lambda": 0.0}, {"ewc_offload": True}, {}], ids=str)
def test_what_nothing_was_taken_from_may_be_held_in_another_way_later(tmp_path, folder, first):
    expected = trained(trainer_of(tmp_path, folder, ewc_state_dtype="bfloat16"))
    trainer = trainer_of(tmp_path, spread_consolidation(small_model()))
    trainer.args.ewc_lambda = first.get("ewc_lambda", 3.0)
    trainer.args.ewc_offload = first.get("ewc_offload", False)
    trainer.train()
    trainer.args.ewc_lambda, trainer.args.ewc_offload, trainer.args.ewc_state_dtype = 3.0, False, "bfloat16"
    assert same(trained(trainer), expected)


def test_a_precision_that_was_given_away_is_not_claimed(tmp_path):
    trainer = trainer_of(tmp_path, spread_consolidation(small_model()), ewc_state_dtype="bfloat16")
    trainer.train()
    trainer.args.ewc_state_dtype = "float32"
    with pytest.raises(
        ValueError, match=r"expected ewc_state_dtype='bfloat16' as in the training before, .* 'float32'"
    ):
        trainer.train()

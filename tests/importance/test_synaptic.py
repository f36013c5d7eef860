"""The callback from the beginning of a training to the consolidation after it."""

import copy
import math

import oracles
import pytest
import torch
from accelerate.utils.deepspeed import DeepSpeedOptimizerWrapper
from assertions import assert_same
from conftest import LENGTH
from small_runs import BATCH, STEPS, Stream, small_model, weights
from synaptic_runs import ACCUMULATION, COUPLINGS, FROZEN, Steps, arguments, optimizer_of, trained
from torch.distributed.fsdp import FullyShardedDataParallel
from transformers import Trainer, TrainerCallback, TrainingArguments

from ewc_hf import Consolidation, EWCConfig, EWCTrainer, SynapticIntelligence

pytestmark = pytest.mark.usefixtures("small_chunks")


@pytest.fixture
def model():
    return small_model()


def test_it_changes_nothing_of_the_run(tmp_path, model):
    results = []
    for switch in (False, True):
        twin = copy.deepcopy(model)
        args = arguments(tmp_path / str(switch), EWCConfig, ewc_synaptic=switch, logging_steps=1)
        trainer = trained(twin, args, [], EWCTrainer)
        logs = [{k: v for k, v in log.items() if k in ("loss", "grad_norm")} for log in trainer.state.log_history]
        results.append((weights(twin), logs, [type(c) for c in trainer.callback_handler.callbacks]))
    for name, weight in results[0][0].items():
        assert torch.equal(weight, results[1][0][name])
    assert results[0][1] == results[1][1]
    assert set(results[1][2]) - set(results[0][2]) == {SynapticIntelligence}


def test_each_training_begins_anew(tmp_path, model):
    synaptic, steps = SynapticIntelligence(), Steps()
    trainer = trained(model, arguments(tmp_path), [synaptic, steps])
    first, first_steps = synaptic.consolidation(), steps[:]
    steps.clear()
    trainer.train()
    second = synaptic.consolidation()
    assert_same(first.importance, oracles.synaptic_intelligence(first_steps))
    assert_same(second.importance, oracles.synaptic_intelligence(steps))
    merged = first.merge(second)
    assert_same(merged.importance, {name: first.importance[name] + omega for name, omega in second.importance.items()})
    assert_same(merged.anchor, weights(model))
    assert [task["num_steps"] for task in merged.metadata["tasks"]] == [STEPS, STEPS]


def test_a_training_that_an_error_ended_is_forgotten(tmp_path, model):
    class Fails(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2 and self.armed:
                self.armed = False
                raise KeyboardInterrupt

    fails, synaptic, steps = Fails(), SynapticIntelligence(), Steps()
    fails.armed = False
    trainer = trained(model, arguments(tmp_path), [synaptic, steps, fails])
    fails.armed = True
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    with pytest.raises(ValueError, match="expected a training that finished"):
        synaptic.consolidation()
    steps.clear()
    trainer.train()
    assert_same(synaptic.consolidation().importance, oracles.synaptic_intelligence(steps))


def test_hooks_go_when_training_ends(tmp_path, model):
    synaptic = SynapticIntelligence()
    optimizer = optimizer_of("sgd", model.parameters())
    trained(model, arguments(tmp_path), [synaptic], optimizer=optimizer)
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks


def test_the_end_is_the_best_weights_where_they_are_loaded(tmp_path, model):
    synaptic, steps = SynapticIntelligence(), Steps()
    args = arguments(
        tmp_path, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, learning_rate=1.0,
        load_best_model_at_end=True, metric_for_best_model="loss", greater_is_better=False,
    )  # fmt: skip
    stream = iter(Stream())
    trained(model, args, [synaptic, steps], eval_dataset=[next(stream) for _ in range(4)])
    best = weights(model)
    assert not torch.equal(best[FROZEN], steps[-1][2][FROZEN])
    assert_same(synaptic.consolidation().importance, oracles.synaptic_intelligence(steps, end=best))


def test_metadata_tells_what_was_read(tmp_path, model):
    synaptic = SynapticIntelligence()
    trained(model, arguments(tmp_path, include_num_input_tokens_seen="all"), [synaptic])
    metadata = synaptic.consolidation().metadata
    assert (metadata["method"], metadata["unit"]) == ("synaptic", "synaptic intelligence, damping 0.1")
    assert (metadata["damping"], metadata["num_steps"]) == (0.1, STEPS)
    assert metadata["num_examples"] == STEPS * BATCH * ACCUMULATION
    assert metadata["num_tokens"] == STEPS * BATCH * ACCUMULATION * LENGTH


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_it_is_saved_read_and_held_onto(tmp_path, model, coupling):
    """Two tasks: what the first taught is stored, and protected while the second teaches."""
    args = arguments(tmp_path, EWCConfig, ewc_synaptic=True)
    trainer = trained(model, args, [], EWCTrainer)
    learned = trainer.synaptic_consolidation()
    model.save_pretrained(tmp_path / "task")
    learned.save_pretrained(tmp_path / "task")
    stored = Consolidation.from_pretrained(tmp_path / "task")
    assert all(torch.equal(stored.importance[name], omega) for name, omega in learned.importance.items())

    args = arguments(tmp_path, EWCConfig, ewc_synaptic=True, ewc_coupling=coupling, ewc_lambda=10.0, logging_steps=1)
    trainer = trained(model, args, [], EWCTrainer, consolidation=tmp_path / "task")
    assert trainer.state.log_history[-2]["ewc_penalty"] > 0
    both = stored.merge(trainer.synaptic_consolidation())
    both.save_pretrained(tmp_path / "both")
    assert len(Consolidation.from_pretrained(tmp_path / "both").metadata["tasks"]) == 2


def test_the_anchor_is_borrowed_until_it_is_owned(tmp_path, model):
    synaptic = SynapticIntelligence()
    trained(model, arguments(tmp_path), [synaptic])
    consolidation = synaptic.consolidation()
    assert consolidation.anchor[FROZEN].data_ptr() == model.get_parameter(FROZEN).data_ptr()
    with torch.no_grad():
        model.get_parameter(FROZEN).add_(1)
    with pytest.raises(ValueError, match="got weights that have moved since"):
        consolidation.save_pretrained(tmp_path / "late")


@pytest.mark.parametrize("damping", [0.0, -0.1, math.nan, math.inf])
def test_damping_is_positive(damping):
    with pytest.raises(ValueError, match=f"expected damping to be a finite number > 0, got {damping}"):
        SynapticIntelligence(damping=damping)


def test_there_is_nothing_before_training(tmp_path, model):
    expected = (
        r"expected a training that finished, with at least one step of the optimizer, got none; call `train\(\)`"
    )
    with pytest.raises(ValueError, match=expected):
        SynapticIntelligence().consolidation()
    trainer = EWCTrainer(model, arguments(tmp_path, EWCConfig, ewc_synaptic=True), train_dataset=Stream())
    with pytest.raises(ValueError, match=expected):
        trainer.synaptic_consolidation()


@pytest.mark.parametrize("kind", [TrainingArguments, EWCConfig])
def test_the_switch_has_to_be_on(tmp_path, model, kind):
    trainer = trained(model, arguments(tmp_path, kind), [], EWCTrainer)
    with pytest.raises(ValueError, match="expected ewc_synaptic=True, got False; switch it on"):
        trainer.synaptic_consolidation()


class Sharded(FullyShardedDataParallel):
    """One by type, for which no process group is needed."""

    def __init__(self):
        torch.nn.Module.__init__(self)


@pytest.mark.parametrize("engine", ["deepspeed", "fsdp"])
def test_engines_that_shard_are_refused(tmp_path, model, engine):
    trainer = Trainer(model, arguments(tmp_path), train_dataset=Stream())
    optimizer = trainer.accelerator.prepare(trainer.create_optimizer())
    if engine == "deepspeed":
        optimizer = DeepSpeedOptimizerWrapper(optimizer.optimizer)
    else:
        model.part = Sharded()
    begins = SynapticIntelligence().on_train_begin
    with pytest.raises(
        ValueError, match="expected one process, DistributedDataParallel or FSDP2, got DeepSpeed or the first FSDP"
    ):
        begins(trainer.args, trainer.state, trainer.control, model=model, optimizer=optimizer)


def test_an_optimizer_that_steps_no_weight_is_refused(tmp_path, model):
    stray = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match="expected an optimizer that steps weights of the model, got SGD"):
        trained(model, arguments(tmp_path), [SynapticIntelligence()], optimizer=stray)


def test_weights_that_diverged_are_refused(tmp_path, model):
    synaptic = SynapticIntelligence()
    trained(model, arguments(tmp_path, learning_rate=1e300, optim="sgd"), [synaptic])
    with pytest.raises(ValueError, match="expected finite numbers, got NaN or Inf in the importance"):
        synaptic.consolidation()

"""What accrues along a training, against every step's gradient and weights written down."""

import copy
import math

import oracles
import pytest
import torch
from assertions import assert_same
from conftest import LENGTH
from small_runs import BATCH, LR, STEPS, ScaledTrainer, Stream, exact_loss, small_model, weights
from synaptic_runs import ACCUMULATION, COUPLINGS, FROZEN, Steps, arguments, optimizer_of, penalized, trained
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import TrainerCallback

from ewc_hf import EWCConfig, EWCTrainer, SynapticIntelligence

pytestmark = pytest.mark.usefixtures("small_chunks")


@pytest.fixture
def model():
    return small_model()


def train_by_hand(model, optimizer, max_norm):
    """Fine-tune without a Trainer; returns the steps as `Steps` writes them down."""
    stream, steps = iter(Stream()), []
    for _ in range(STEPS):
        optimizer.zero_grad()
        for _ in range(ACCUMULATION):
            ids = torch.stack([next(stream)["input_ids"] for _ in range(BATCH)])
            exact_loss(model(input_ids=ids), ids, ACCUMULATION * BATCH * LENGTH).backward()
        if max_norm:
            norm = math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters()))
            for p in model.parameters():
                p.grad *= min(1, max_norm / (norm + 1e-6))
        gradient, before = {name: p.grad.clone() for name, p in model.named_parameters()}, weights(model)
        optimizer.step()
        steps.append((gradient, before, weights(model)))
    return steps


@pytest.mark.parametrize("clipping", [0.0, 0.5], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_equals_the_oracle(tmp_path, model, kind, clipping):
    by_hand = copy.deepcopy(model)
    steps = train_by_hand(by_hand, optimizer_of(kind, by_hand.parameters()), clipping)
    synaptic = SynapticIntelligence()
    args = arguments(tmp_path, max_grad_norm=clipping)
    trained(model, args, [synaptic], optimizer=optimizer_of(kind, model.parameters()))
    got = synaptic.consolidation()
    assert_same(got.importance, oracles.synaptic_intelligence(steps))
    assert all(omega.dtype == torch.float64 for omega in got.importance.values())
    assert_same(got.anchor, weights(by_hand))


def test_damping_is_an_argument(tmp_path, model):
    synaptic, steps = SynapticIntelligence(damping=1e-4), Steps()
    trained(model, arguments(tmp_path), [synaptic, steps])
    assert_same(synaptic.consolidation().importance, oracles.synaptic_intelligence(steps, damping=1e-4))
    assert synaptic.consolidation().metadata["damping"] == 1e-4


def test_a_weight_that_moved_against_its_gradient_has_no_importance(tmp_path, model):
    """The pull to an anchor carries weights uphill, and without the clamp their importance would be negative."""
    synaptic, steps = SynapticIntelligence(), Steps()
    args = arguments(tmp_path, EWCConfig, ewc_coupling="decoupled", ewc_lambda=1e3)
    trained(model, args, [synaptic, steps], EWCTrainer, consolidation=penalized(model))
    uphill = 0
    for name, omega in synaptic.consolidation().importance.items():
        accrued = sum(-gradient[name] * (after[name] - before[name]) for gradient, before, after in steps)
        assert (omega[accrued < -1e-12] == 0).all() and (omega[accrued > 1e-12] > 0).all()  # a key bias has round-off
        uphill += (accrued < -1e-12).sum().item()
    assert uphill > 100


@pytest.mark.parametrize("learning_rate", [1e-3, 5e-6])
def test_float32_loses_nothing_to_rounding(tmp_path, model, learning_rate):
    """However small the steps are beside the weights: `g w` summed in float32 is wrong by 6e-3 at the smaller rate."""
    model, synaptic, steps = model.float(), SynapticIntelligence(), Steps()
    args = arguments(tmp_path, max_steps=50, gradient_accumulation_steps=1, learning_rate=learning_rate)
    trained(model, args, [synaptic, steps])
    got = synaptic.consolidation().importance
    assert all(omega.dtype == torch.float32 for omega in got.values())
    expected = oracles.synaptic_intelligence(steps)
    for name, value in expected.items():
        assert (got[name] - value).abs().max() <= 3e-6 * value.max() + 1e-12, name


def test_half_precision_weights_accrue_in_float32(tmp_path, model):
    model, synaptic, steps = model.bfloat16(), SynapticIntelligence(), Steps()
    trained(model, arguments(tmp_path), [synaptic, steps])
    got = synaptic.consolidation().importance
    assert all(omega.dtype == torch.float32 for omega in got.values())
    assert_same(got, oracles.synaptic_intelligence(steps), relative=1e-5)


@pytest.mark.parametrize("given", ["switched on", "as a callback"])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_penalty_is_part_of_the_gradient_or_of_the_move(tmp_path, model, coupling, given):
    """As a callback it comes before the penalty's, whose hook after the step is registered later."""
    synaptic, steps = SynapticIntelligence(), Steps()
    args = arguments(tmp_path, EWCConfig, ewc_coupling=coupling, ewc_lambda=3.0, ewc_synaptic=given == "switched on")
    callbacks = [steps] if args.ewc_synaptic else [synaptic, steps]
    trainer = trained(model, args, callbacks, EWCTrainer, consolidation=penalized(model))
    got = trainer.synaptic_consolidation() if args.ewc_synaptic else synaptic.consolidation()
    assert_same(got.importance, oracles.synaptic_intelligence(steps))


def test_frozen_weights_are_left_out(tmp_path, model):
    model.get_parameter(FROZEN).requires_grad_(False)
    synaptic, steps = SynapticIntelligence(), Steps()
    trained(model, arguments(tmp_path), [synaptic, steps])
    got = synaptic.consolidation()
    assert FROZEN not in got.importance and FROZEN not in got.anchor
    assert_same(got.importance, oracles.synaptic_intelligence(steps))


def test_weights_of_no_optimizer_are_left_out(tmp_path, model):
    stepped = [p for name, p in model.named_parameters() if name != FROZEN]
    synaptic = SynapticIntelligence()
    trained(model, arguments(tmp_path), [synaptic], optimizer=optimizer_of("sgd", stepped))
    assert weights(model).keys() - synaptic.consolidation().importance.keys() == {FROZEN}


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
@pytest.mark.parametrize("clipping", [0.0, 0.5], ids=["unclipped", "clipped"])
def test_a_scaled_loss_gives_the_same(tmp_path, model, optim, clipping):
    """A fused optimizer that nothing is clipped for gets the gradients still scaled."""
    results = []
    for trainer_class in (EWCTrainer, ScaledTrainer):
        args = arguments(tmp_path, EWCConfig, optim=optim, max_grad_norm=clipping, ewc_synaptic=True)
        trainer = trained(copy.deepcopy(model).float(), args, [], trainer_class)
        results.append(trainer.synaptic_consolidation().importance)
    assert_same(results[1], results[0], relative=1e-3)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
@pytest.mark.parametrize("skipped", [1, 3], ids=["first", "third"])
def test_a_step_skipped_for_an_infinite_gradient_adds_nothing(tmp_path, model, optim, skipped):
    class Overflows(ScaledTrainer):
        def training_step(self, model, inputs, *args, **kwargs):
            loss = super().training_step(model, inputs, *args, **kwargs)
            if self.state.global_step == skipped - 1:
                model.get_parameter(FROZEN).grad.fill_(torch.inf)
            return loss

    # Clipping by a norm that no gradient reaches unscales them, so that what is written down is what is stepped with.
    args = arguments(tmp_path, EWCConfig, optim=optim, max_grad_norm=1e9, ewc_synaptic=True)
    steps = Steps()
    trainer = trained(model.float(), args, [steps], Overflows)
    got = trainer.synaptic_consolidation()
    del steps[skipped - 1]
    assert_same(got.importance, oracles.synaptic_intelligence(steps), relative=1e-5)
    assert got.metadata["num_steps"] == STEPS - 1


def test_no_step_takes_memory_of_the_size_of_a_weight(tmp_path, model, small_chunks):
    """Its work is run again, before and after a step, while every new tensor is measured."""

    class Allocations(TorchDispatchMode):
        largest, total = 0, 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            held = {t.untyped_storage().data_ptr() for t in tree_leaves(args) if isinstance(t, torch.Tensor)}
            result = function(*args, **(kwargs or {}))
            for t in tree_leaves(result):
                if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in held:
                    self.largest = max(self.largest, t.numel())
                    self.total += 1
            return result

    class Measures(TrainerCallback):
        allocations = Allocations()

        def on_pre_optimizer_step(self, *args, optimizer, **kwargs):
            (hook,) = optimizer.optimizer._optimizer_step_pre_hooks.values()
            with self.allocations:
                hook(optimizer.optimizer, (), {})
                synaptic.on_optimizer_step()

    synaptic, measures = SynapticIntelligence(), Measures()
    trained(model.float(), arguments(tmp_path), [synaptic, measures])
    assert measures.allocations.total > 0
    assert measures.allocations.largest <= small_chunks < max(p.numel() for p in model.parameters())


@pytest.mark.parametrize("foreach", [False, True])
def test_a_gradient_that_the_step_changes_is_read_before(tmp_path, model, foreach):
    """Nesterov's momentum is added to the gradient in place where SGD goes over all parameters at once."""
    synaptic, steps = SynapticIntelligence(), Steps()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, nesterov=True, foreach=foreach)
    trained(model, arguments(tmp_path), [synaptic, steps], optimizer=optimizer)
    assert_same(synaptic.consolidation().importance, oracles.synaptic_intelligence(steps))

"""Synaptic Intelligence of real training runs, against every step's gradient and weights written down."""

import copy
import math
import shutil

import oracles
import pytest
import torch
from accelerate.utils.deepspeed import DeepSpeedOptimizerWrapper
from conftest import LENGTH, VOCAB, make_consolidation
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import IterableDataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from ewc_hf import Consolidation, EWCConfig, EWCTrainer, SynapticIntelligence, penalty

STEPS, BATCH, ACCUMULATION, LR = 4, 2, 2, 1e-2
FROZEN = "transformer.wpe.weight"
COUPLINGS = ("loss", "decoupled")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """So that the small weights here are larger than one chunk, and the last chunk is a short one."""
    monkeypatch.setattr(penalty, "_CHUNK", 100)


@pytest.fixture
def model():
    """Without dropout, so that a loop written by hand sees the same gradients."""
    config = GPT2Config(
        n_layer=1, n_embd=8, n_head=2, vocab_size=VOCAB, n_positions=16, initializer_range=0.2,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    return GPT2LMHeadModel(config).double()


class Stream(IterableDataset):
    """The same examples in the same order, whatever the seed."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(5)
        while True:
            ids = torch.randint(0, VOCAB, (LENGTH,), generator=generator)
            yield {"input_ids": ids, "labels": ids}


class Steps(TrainerCallback, list):
    """Writes down each step's gradient and weights, by no hook of the optimizer."""

    def on_pre_optimizer_step(self, *args, model, **kwargs):
        self.gradient = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
        self.before = weights(model)

    def on_step_end(self, *args, model, **kwargs):
        self.append((self.gradient, self.before, weights(model)))


class ScaledTrainer(EWCTrainer):
    """Uses torch's own gradient scaler on the CPU, where accelerate makes none."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def _clip_grad_norm(self, model):
        self.accelerator.scaler.unscale_(self.optimizer.optimizer)  # as accelerate does under fp16
        return super()._clip_grad_norm(model)


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def arguments(folder, kind=TrainingArguments, **options):
    options = {
        "max_steps": STEPS, "per_device_train_batch_size": BATCH, "gradient_accumulation_steps": ACCUMULATION,
        "learning_rate": LR, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "report_to": "none",
        "use_cpu": True, "save_strategy": "no", "disable_tqdm": True, "dataloader_pin_memory": False, **options,
    }  # fmt: skip
    return kind(str(folder), **options)


def optimizer_of(kind, parameters):
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=LR, momentum=0.9)
    return torch.optim.AdamW(parameters, lr=LR, weight_decay=0.1)


def exact_loss(outputs, labels, num_items_in_batch):
    """Cross-entropy in float64; transformers' own rounds the logits to float32."""
    log_p = outputs.logits[:, :-1].log_softmax(-1)
    return -log_p.gather(-1, labels[:, 1:, None]).sum() / num_items_in_batch


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


def trained(model, args, callbacks, trainer_class=Trainer, optimizer=None, **more):
    trainer = trainer_class(
        model,
        args,
        train_dataset=Stream(),
        compute_loss_func=exact_loss,
        callbacks=callbacks,
        optimizers=(optimizer, None),
        **more,
    )
    trainer.train()
    return trainer


def penalized(model):
    """A consolidation whose anchor is away from the model's weights, so that both couplings pull."""
    return make_consolidation({name: p.shape for name, p in model.named_parameters()}, seed=1)


def assert_same(got, expected, relative=1e-10):
    """Relative to each tensor's largest value; a key bias, whose true gradient is zero, holds round-off only."""
    assert got.keys() == expected.keys()
    round_off = 1e-14 * max(value.max() for value in expected.values())
    for name, value in expected.items():
        assert (got[name] - value).abs().max() <= relative * value.abs().max() + round_off, name


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


def test_no_step_takes_memory_of_the_size_of_a_weight(tmp_path, model):
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
    assert measures.allocations.largest <= penalty._CHUNK < max(p.numel() for p in model.parameters())


def test_metadata_tells_what_was_read(tmp_path, model):
    synaptic = SynapticIntelligence()
    trained(model, arguments(tmp_path, include_num_input_tokens_seen="all"), [synaptic])
    metadata = synaptic.consolidation().metadata
    assert (metadata["method"], metadata["unit"]) == ("synaptic", "synaptic intelligence")
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


def test_a_resumed_run_goes_on_with_its_sums(tmp_path, model):
    whole = SynapticIntelligence()
    args = arguments(tmp_path, save_strategy="steps", save_steps=2)
    fresh = copy.deepcopy(model)
    trained(model, args, [whole])
    resumed = SynapticIntelligence()
    Trainer(fresh, args, train_dataset=Stream(), callbacks=[resumed], compute_loss_func=exact_loss).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-2")
    )
    got, expected = resumed.consolidation(), whole.consolidation()
    assert got.metadata == expected.metadata
    assert all(torch.equal(got.importance[name], omega) for name, omega in expected.importance.items())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "ewc_synaptic.safetensors.index.json").unlink(), "expected the sums of Synaptic"),
        (lambda folder: (folder / "ewc_synaptic.safetensors").write_bytes(b"x"), "expected SHA-256"),
    ],
    ids=["missing", "changed"],
)
def test_a_checkpoint_without_its_sums_is_refused(tmp_path, model, damage, message):
    args = arguments(tmp_path, save_strategy="steps", save_steps=2)
    trainer = trained(model, args, [SynapticIntelligence()])
    damage(tmp_path / "checkpoint-2")
    with pytest.raises(ValueError, match=message):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_the_sums_of_other_parameters_are_refused(tmp_path, model):
    saving = {"save_strategy": "steps", "save_steps": 2}
    trainer = trained(model, arguments(tmp_path / "all", **saving), [SynapticIntelligence()])
    frozen = copy.deepcopy(model)
    frozen.transformer.wpe.requires_grad_(False)
    trained(frozen, arguments(tmp_path / "fewer", **saving), [SynapticIntelligence()])
    for path in (tmp_path / "fewer" / "checkpoint-2").glob("ewc_synaptic*"):
        shutil.copy(path, tmp_path / "all" / "checkpoint-2")
    with pytest.raises(ValueError, match=r"expected the sums of 'transformer.wpe.weight' of the same shape"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "all" / "checkpoint-2"))


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

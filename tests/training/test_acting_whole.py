"""The penalty acts in all weights that it was given, with the lambda in force when training begins, or not at all."""

import inspect

import pytest
import torch
from small_runs import Stream, arguments, examples, small_model, spread_consolidation, weights
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from transformers import Trainer

from ewc_hf import Consolidation, EWCMixin, EWCTrainer
from ewc_hf.penalty import Diagonal

OVERRIDDEN = sorted(
    {
        name
        for mixin in EWCMixin.__mro__
        if mixin.__module__.startswith("ewc_hf")
        for name in vars(mixin)
        if name in vars(Trainer) and callable(getattr(Trainer, name)) and name != "__init__"
    }
)


class Renaming(nn.Module):
    """A wrapper that nobody knows: what is inside gets another name."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


def trainer_of(folder, model=None, consolidation=None, **options):
    model = small_model() if model is None else model
    consolidation = spread_consolidation(model) if consolidation is None else consolidation
    return EWCTrainer(model, arguments(folder, **options), consolidation=consolidation, train_dataset=Stream())


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_overridden_methods_have_trainers_own_signature(name):
    """Or pass all on. More keywords may pass through to trainers that take them, such as `Seq2SeqTrainer.evaluate`."""
    ours, theirs = ([*inspect.signature(getattr(cls, name)).parameters.values()] for cls in (EWCMixin, Trainer))
    if [p.kind for p in ours[1:]] == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]:
        return
    passed_on = [p for p in ours if p.kind is not p.VAR_KEYWORD]
    assert [(p.name, p.kind, p.default) for p in passed_on] == [(p.name, p.kind, p.default) for p in theirs]


def test_methods_that_trainers_subclasses_call_are_overridden():
    assert {"train", "training_step", "log", "evaluate", "evaluation_loop"} <= set(OVERRIDDEN)


class WithArgumentsOfItsOwn(Trainer):
    """As the trainers of many examples and projects: other arguments between Trainer's, or all others in one."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        return super().compute_loss(model, inputs, return_outputs, **kwargs)

    def evaluate(self, eval_dataset=None, eval_examples=None, ignore_keys=None, metric_key_prefix="eval"):
        assert eval_examples in (None, "examples") and ignore_keys is None
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def train(self, resume_from_checkpoint=None, **kwargs):
        return super().train(resume_from_checkpoint, **kwargs)


def test_trainers_with_arguments_of_their_own(tmp_path):
    class Held(EWCMixin, WithArgumentsOfItsOwn):
        pass

    model = small_model()
    held, usual = (
        make(model, arguments(tmp_path), train_dataset=Stream(), **given)
        for make, model, given in (
            (Held, model, {"consolidation": spread_consolidation(model)}),
            (EWCTrainer, small_model(), {"consolidation": spread_consolidation(small_model())}),
        )
    )
    assert held.train().training_loss == usual.train().training_loss
    assert "test_loss" in held.evaluate(examples(4), metric_key_prefix="test", eval_examples="examples")


@pytest.mark.parametrize("positional", [False, True])
def test_the_evaluation_loop_takes_positions_and_keywords(tmp_path, positional):
    trainer = trainer_of(tmp_path)
    loader = trainer.get_eval_dataloader(examples(4))
    names = ("description", "prediction_loss_only", "ignore_keys", "metric_key_prefix")
    values = ("Evaluation", True, None, "eval")
    args, kwargs = (values, {}) if positional else ((), dict(zip(names, values, strict=True)))
    assert "eval_loss" in trainer.evaluation_loop(loader, *args, **kwargs).metrics


@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
def test_wrappers_of_activation_checkpointing_change_nothing(tmp_path, coupling):
    trained = []
    for wraps in (False, True):
        trainer = trainer_of(tmp_path, ewc_coupling=coupling, ewc_lambda=10.0)
        if wraps:
            block = trainer.model.transformer.h[0]
            block.mlp = checkpoint_wrapper(block.mlp)
        trainer.train()
        trained.append([p.detach() for p in trainer.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))


def test_a_wrapper_that_renames_parameters_stops_the_run(tmp_path):
    trainer = trainer_of(tmp_path)
    block = trainer.model.transformer.h[0]
    block.mlp = Renaming(block.mlp)
    before = weights(trainer.model)
    with pytest.raises(ValueError, match=r"all 16 protected .*got 12 of them: not on 4, such as 'transformer.h.0.mlp"):
        trainer.train()
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())


def test_an_optimizer_of_some_of_the_weights_stops_the_run(tmp_path):
    model = small_model()
    optimizer = torch.optim.SGD(model.transformer.wte.parameters(), lr=0.1)
    trainer = EWCTrainer(
        model,
        arguments(tmp_path),
        consolidation=spread_consolidation(model),
        train_dataset=Stream(),
        optimizers=(optimizer, None),
    )
    with pytest.raises(ValueError, match="all 16 protected parameters, got 1 of them: not on 15"):
        trainer.train()


@pytest.mark.parametrize(("built", "trained"), [(0.0, 10.0), (10.0, 0.0), (1.0, 10.0)])
def test_the_lambda_in_force_when_training_begins_counts(tmp_path, built, trained):
    """As a hyperparameter search changes it after the trainer is built."""
    expected = trainer_of(tmp_path, ewc_lambda=trained)
    expected.train()
    trainer = trainer_of(tmp_path, ewc_lambda=built)
    trainer.args.ewc_lambda = trained
    trainer.train()
    assert ("ewc_penalty" in trainer.state.log_history[0]) == (trained > 0)
    found, wanted = weights(trainer.model), weights(expected.model)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("found", [-1.0, float("nan"), "much"])
def test_a_lambda_that_a_search_found_is_checked_too(tmp_path, found):
    trainer = trainer_of(tmp_path, ewc_lambda=0.0)
    trainer.args.ewc_lambda = found
    with pytest.raises(ValueError, match=f"expected ewc_lambda to be a finite number >= 0, got {found}"):
        trainer.train()


def test_weights_that_moved_before_the_penalty_was_switched_on_are_no_anchor(tmp_path):
    model = small_model()
    borrowed = Consolidation.create(
        importance={name: torch.ones_like(p) for name, p in model.named_parameters()},
        anchor={name: p.detach() for name, p in model.named_parameters()},
        anchor_is_borrowed=True,
        method="fisher",
        unit="nats per token",
        num_examples=1,
        num_tokens=7,
    )
    trainer = trainer_of(tmp_path, model, borrowed, ewc_lambda=0.0)
    trainer.train()
    trainer.args.ewc_lambda = 1.0
    with pytest.raises(ValueError, match="weights that have moved since"):
        trainer.train()


HELD = {
    "by default": ({}, (False, False, False)),
    "bfloat16": ({"ewc_state_dtype": "bfloat16"}, (True, False, False)),
    "offloaded": ({"ewc_offload": True}, (False, True, False)),
    "compiled": ({"torch_compile": True}, (False, False, True)),
}


@pytest.mark.parametrize(("options", "expected"), HELD.values(), ids=HELD)
def test_the_arguments_say_how_the_state_is_held_and_read(tmp_path, monkeypatch, options, expected):
    """On a CPU nothing else tells an offloaded state from another, or a small model's compiled kernels."""
    held = []

    class Noted(Diagonal):
        def __init__(self, consolidation, parameters, bfloat16, offload, fused):
            held.append((bfloat16, offload, fused))
            super().__init__(consolidation, parameters, bfloat16, offload, fused)

    monkeypatch.setattr("ewc_hf.penalty.terms.Diagonal", Noted)
    trainer = trainer_of(tmp_path, max_steps=1)
    for name, value in options.items():  # once it is built, so that nobody compiles the model
        setattr(trainer.args, name, value)
    trainer.train()
    assert held == [expected]

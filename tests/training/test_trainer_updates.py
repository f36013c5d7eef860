"""What a training step does to the weights, against a loop that is written out by hand."""

import math
from copy import deepcopy

import pytest
import torch
from small_runs import (
    BATCH,
    LR,
    ScaledTrainer,
    Stream,
    arguments,
    exact_loss,
    small_model,
    spread_consolidation,
    weights,
)

from ewc_hf import EWCTrainer


@pytest.fixture
def model():
    return small_model()


@pytest.fixture
def consolidation(model):
    return spread_consolidation(model)


def optimizer_of(kind, model):
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=1e-2)
    if kind == "momentum":
        return torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, dampening=0.2)
    return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01, amsgrad=kind == "amsgrad")


def train_by_hand(model, consolidation, args, optimizer):
    """Fine-tune as the formulas say, one line each."""
    stream, lam, max_norm = iter(Stream()), args.ewc_lambda, args.max_grad_norm
    names = {p: name for name, p in model.named_parameters()}
    model.train()
    for step in range(args.max_steps):
        lr = args.learning_rate * (args.max_steps - step) / args.max_steps
        micro = [[next(stream)["input_ids"] for _ in range(BATCH)] for _ in range(args.gradient_accumulation_steps)]
        num_tokens = sum(len(ids) for batch in micro for ids in batch)  # as the Trainer counts, first tokens included
        optimizer.zero_grad()
        for batch in micro:
            ids = torch.stack(batch)
            exact_loss(model(input_ids=ids), ids, num_tokens).backward()
        if args.ewc_coupling == "loss":
            alpha = (args.ewc_alpha or args.learning_rate) if args.ewc_stabilized else 0
            for p, name in names.items():
                omega, anchor = consolidation.importance[name], consolidation.anchor[name]
                p.grad += lam * omega / (1 + alpha * lam * omega) * (p.detach() - anchor)
        if max_norm:
            norm = math.sqrt(sum(p.grad.square().sum().item() for p in names))
            for p in names:
                p.grad *= min(1, max_norm / (norm + 1e-6))
        (group,) = optimizer.param_groups
        group["lr"] = lr
        optimizer.step()
        if args.ewc_coupling == "decoupled":
            for p, name in names.items():
                omega, anchor = consolidation.importance[name], consolidation.anchor[name]
                if isinstance(optimizer, torch.optim.SGD):
                    a = lr * (1 - group["dampening"]) / (1 - group["momentum"]) if group["momentum"] else lr
                else:
                    state = optimizer.state[p]
                    v = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
                    a = lr / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
                p.data = p.data + a * lam * omega / (1 + a * lam * omega) * (anchor - p.data)


def train(model, args, consolidation, optimizer):
    EWCTrainer(
        model,
        args,
        consolidation=consolidation,
        train_dataset=Stream(),
        optimizers=(optimizer, None),
        compute_loss_func=exact_loss,
    ).train()


@pytest.mark.parametrize("clipping", [0.0, 0.5], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("kind", ["sgd", "momentum", "adamw", "amsgrad"])
@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
def test_the_update_is_the_formulas(tmp_path, model, consolidation, coupling, kind, accumulation, clipping):
    args = arguments(
        tmp_path, ewc_coupling=coupling, ewc_lambda=3.0, gradient_accumulation_steps=accumulation,
        max_grad_norm=clipping,
    )  # fmt: skip
    by_hand = deepcopy(model)
    train_by_hand(by_hand, consolidation, args, optimizer_of(kind, by_hand))

    train(model, args, consolidation, optimizer_of(kind, model))

    for name, weight in weights(model).items():
        torch.testing.assert_close(weight, by_hand.get_parameter(name).detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", [{"ewc_stabilized": False}, {"ewc_alpha": 0.3}], ids=["plain", "alpha given"])
def test_alpha_and_stabilization_follow_the_arguments(tmp_path, model, consolidation, options):
    args = arguments(tmp_path, ewc_coupling="loss", ewc_lambda=3.0, **options)
    by_hand = deepcopy(model)
    train_by_hand(by_hand, consolidation, args, optimizer_of("sgd", by_hand))
    train(model, args, consolidation, optimizer_of("sgd", model))
    for name, weight in weights(model).items():
        torch.testing.assert_close(weight, by_hand.get_parameter(name).detach(), rtol=1e-10, atol=1e-10)


def test_during_a_warm_up_alpha_is_the_peak_learning_rate(tmp_path, model, consolidation):
    """It begins with a learning rate of zero, which as alpha would make the penalty plain."""
    trained = {}
    for alpha in (None, LR, 0.0):
        copy = deepcopy(model)
        args = arguments(tmp_path, ewc_coupling="loss", ewc_lambda=3.0, ewc_alpha=alpha, warmup_steps=3)
        EWCTrainer(copy, args, consolidation=consolidation, train_dataset=Stream()).train()
        trained[alpha] = weights(copy)
    assert all(torch.equal(weight, trained[LR][name]) for name, weight in trained[None].items())
    assert not all(torch.equal(weight, trained[0.0][name]) for name, weight in trained[None].items())


def test_a_huge_lambda_lands_on_the_anchor_without_overshooting(tmp_path, model, consolidation):
    args = arguments(tmp_path, ewc_coupling="decoupled", ewc_lambda=1e300)
    EWCTrainer(model, args, consolidation=consolidation, train_dataset=Stream()).train()
    for name, weight in weights(model).items():
        important = consolidation.importance[name] > 0
        torch.testing.assert_close(weight[important], consolidation.anchor[name][important], rtol=0, atol=1e-12)


def test_without_stabilization_a_huge_lambda_explodes_under_sgd(tmp_path, model, consolidation):
    args = arguments(tmp_path, ewc_coupling="loss", ewc_lambda=1e6, ewc_stabilized=False, max_grad_norm=0.0)
    train(model, args, consolidation, optimizer_of("sgd", model))
    assert max(weight.abs().max() for weight in weights(model).values()) > 1e6


@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
def test_a_scaled_loss_gives_the_same_update(tmp_path, model, consolidation, coupling):
    results = []
    for trainer_class in (EWCTrainer, ScaledTrainer):
        copy = deepcopy(model).float()
        args = arguments(tmp_path, ewc_coupling=coupling, ewc_lambda=3.0, max_grad_norm=0.0)
        optimizers = (torch.optim.SGD(copy.parameters(), lr=1e-2), None)
        trainer_class(copy, args, consolidation=consolidation, train_dataset=Stream(), optimizers=optimizers).train()
        results.append(weights(copy))
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2], ids=["first step", "a later step"])
@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
def test_a_step_skipped_for_an_infinite_gradient_leaves_the_weights(tmp_path, model, consolidation, coupling, steps):
    class OverflowsLast(ScaledTrainer):
        """Has an infinite gradient at the last step."""

        def training_step(self, *args, **kwargs):
            if self.state.global_step == steps - 1:
                self.before = weights(self.model)
                self.model.transformer.wpe.weight.register_hook(lambda grad: grad + torch.inf)
            return super().training_step(*args, **kwargs)

    copy = deepcopy(model).float()
    args = arguments(tmp_path, ewc_coupling=coupling, ewc_lambda=3.0, max_steps=steps, optim="adamw_torch_fused")
    trainer = OverflowsLast(copy, args, consolidation=consolidation, train_dataset=Stream())
    start = weights(copy)
    trainer.train()
    for name, weight in weights(copy).items():
        assert torch.equal(weight, trainer.before[name])
    moved = any(not torch.equal(weight, start[name]) for name, weight in weights(copy).items())
    assert moved == (steps == 2)

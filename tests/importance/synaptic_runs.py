"""Runs that Synaptic Intelligence follows, and every step's gradient and weights written down."""

import small_runs
import torch
from conftest import make_consolidation
from small_runs import LR, Stream, exact_loss, weights
from transformers import Trainer, TrainerCallback, TrainingArguments

ACCUMULATION = 2
FROZEN = "transformer.wpe.weight"
COUPLINGS = ("loss", "decoupled")


class Steps(TrainerCallback, list):
    """Writes down each step's gradient and weights, by no hook of the optimizer."""

    def on_pre_optimizer_step(self, *args, model, **kwargs):
        self.gradient = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
        self.before = weights(model)

    def on_step_end(self, *args, model, **kwargs):
        self.append((self.gradient, self.before, weights(model)))


def arguments(folder, kind=TrainingArguments, **options):
    options = {
        "gradient_accumulation_steps": ACCUMULATION, "lr_scheduler_type": "constant", "max_grad_norm": 0.0,
        "logging_steps": 500, **options,
    }  # fmt: skip
    return small_runs.arguments(folder, kind, **options)


def optimizer_of(kind, parameters):
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=LR, momentum=0.9)
    return torch.optim.AdamW(parameters, lr=LR, weight_decay=0.1)


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

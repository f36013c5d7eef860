"""What a training step with rehearsal rows does to the weights, against old and new model run whole on their own."""

import logging
import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from accelerate.utils import is_compiled_module
from conftest import VOCAB
from oracles import divergence, remembered_divergence
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
from transformers import Trainer, TrainingArguments

from ewc_hf import EWCConfig, EWCTrainer
from ewc_hf.rehearsal import answer_rehearsal, order

WEIGHT, ROWS, STEPS = 1.5, 2, 3


@pytest.fixture
def model():
    return small_model()


def old_rows(lengths=(7,) * 6):
    draws = torch.Generator().manual_seed(9)
    return [{"input_ids": torch.randint(0, VOCAB, (length,), generator=draws).tolist()} for length in lengths]


def moved(model):
    """Another model than the one that answered, so that there is a divergence from the first step on."""
    draws = torch.Generator().manual_seed(3)
    for p in model.parameters():
        p.data += 0.05 * torch.randn(p.shape, generator=draws, dtype=p.dtype)
    return model


def by_hand(model, old, rehearsal, accumulation=1, max_norm=0, consolidation=None, ewc_lambda=0.0):
    """SGD on the task's NLL and the divergence at the rows' positions, in forward passes of one row each.

    With all answers remembered the old model is run beside the new one.
    """
    stream, seed = iter(Stream()), EWCConfig("unused").seed
    for step in range(STEPS):
        model.zero_grad()
        ids_BT = torch.stack([next(stream)["input_ids"] for _ in range(BATCH * accumulation)])
        task = exact_loss(model(input_ids=ids_BT), ids_BT, ids_BT.numel())
        together = ROWS * accumulation
        divergences = []
        for index in order.rows_at(range(step * together, (step + 1) * together), len(rehearsal), seed):
            row = {key: torch.tensor(np.array([value])) for key, value in rehearsal.rows[index].items()}
            old_log_p, new_log_p = (m(input_ids=row["input_ids"]).logits.log_softmax(-1) for m in (old, model))
            if rehearsal.metadata["top_k"] == VOCAB:
                of_row = divergence(old_log_p.detach(), new_log_p)
            else:
                remembered = row["answer_ids"], row["log_probs"], row["rest"]
                of_row = remembered_divergence(new_log_p, *remembered)
            divergences.append(of_row.flatten())
        kl = torch.cat(divergences).mean()
        (task + WEIGHT * kl).backward()
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters()))
        for name, p in model.named_parameters():
            p.data -= LR * p.grad * (min(1, max_norm / (norm + 1e-6)) if max_norm else 1)
            if consolidation is not None:
                pull = LR * ewc_lambda * consolidation.importance[name]
                p.data += pull / (1 + pull) * (consolidation.anchor[name] - p.data)
    return task.item(), kl.item()


def train(folder, model, rehearsal, kind=EWCTrainer, consolidation=None, dataset=None, **options):
    options = {"max_steps": STEPS, "optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0, **options}
    options = {"rehearsal_weight": WEIGHT, "rehearsal_rows": ROWS, "per_device_train_batch_size": BATCH, **options}
    loss = options.pop("compute_loss_func", exact_loss)
    trainer = kind(
        model,
        arguments(folder, **options),
        train_dataset=Stream() if dataset is None else dataset,
        rehearsal=rehearsal,
        consolidation=consolidation,
        compute_loss_func=loss,
    )
    trainer.train()
    return trainer


def logs_of(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def require_close(model, expected, bound=1e-10):
    got = weights(model)
    for name, p in expected.named_parameters():
        assert (got[name] - p).abs().max() < bound, name


@pytest.mark.parametrize("top_k", [VOCAB, 5], ids=["all answers", "five answers and draws"])
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("lengths", [(7,) * 6, (3, 12, 5, 9, 8, 7, 2)], ids=["alike", "longer and shorter"])
def test_steps_are_those_of_two_models_run_apart(tmp_path, model, top_k, accumulation, lengths):
    rows = old_rows(lengths)
    old, expected = deepcopy(model), moved(deepcopy(model))
    rehearsal = answer_rehearsal(model, rows, top_k=top_k, progress=False)
    task, kl = by_hand(expected, old, rehearsal, accumulation)
    trainer = train(tmp_path, moved(model), rehearsal, gradient_accumulation_steps=accumulation)
    require_close(trainer.model, expected)
    last = logs_of(trainer)[-1]
    assert last["loss"] == pytest.approx(task, rel=1e-4) and last["rehearsal_kl"] == pytest.approx(kl, rel=1e-6)


@pytest.mark.parametrize("kind", [EWCTrainer, ScaledTrainer], ids=["unscaled", "loss scaled"])
def test_clipping_and_the_penalty_act_on_the_whole_gradient(tmp_path, model, kind):
    rows, consolidation = old_rows(), spread_consolidation(model)
    old, expected = deepcopy(model), moved(deepcopy(model))
    rehearsal = answer_rehearsal(model, rows, top_k=VOCAB, progress=False)
    by_hand(expected, old, rehearsal, max_norm=0.3, consolidation=consolidation, ewc_lambda=7.0)
    trainer = train(tmp_path, moved(model), rehearsal, kind, consolidation, max_grad_norm=0.3, ewc_lambda=7.0)
    require_close(trainer.model, expected)
    assert logs_of(trainer)[-1].keys() >= {"rehearsal_kl", "ewc_penalty"}


@pytest.mark.parametrize(
    "options",
    [{"compute_loss_func": None}, {"compute_loss_func": None, "label_smoothing_factor": 0.1}, {}],
    ids=["the model's loss", "label smoothing", "a loss of the user's"],
)
def test_the_task_loss_sees_the_task_only(tmp_path, model, options):
    """A weight too small to move anything leaves the logged losses and the weights as they are without rows."""
    rehearsal = answer_rehearsal(model, old_rows((12,) * 6), top_k=5, progress=False)
    with_rows = train(tmp_path, deepcopy(model), rehearsal, rehearsal_weight=1e-30, **options)
    without = train(tmp_path, deepcopy(model), None, **options)
    assert [entry["loss"] for entry in logs_of(with_rows)] == pytest.approx([e["loss"] for e in logs_of(without)])
    require_close(with_rows.model, without.model, 1e-7 if options else 1e-6)


class Task(torch.utils.data.Dataset):
    """A few examples with labels of a part."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        ids = torch.randint(0, VOCAB, (9,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.masked_fill(ids < 9, -100)}


def test_evaluation_knows_no_rehearsal(tmp_path, model):
    rehearsal = answer_rehearsal(model, old_rows(), progress=False)
    trainer = train(tmp_path, model, rehearsal, dataset=Task(), compute_loss_func=None)
    evaluated = Trainer(trainer.model, arguments(tmp_path, TrainingArguments), eval_dataset=Task()).evaluate()
    assert trainer.evaluate(Task())["eval_loss"] == evaluated["eval_loss"]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_gradient_checkpointing_changes_nothing(tmp_path, model):
    rehearsal = answer_rehearsal(model, old_rows(), top_k=5, progress=False)
    usual = train(tmp_path, deepcopy(model), rehearsal).model
    checkpointed = train(tmp_path, deepcopy(model), rehearsal, gradient_checkpointing=True).model
    assert checkpointed.is_gradient_checkpointing
    require_close(checkpointed, usual)


def test_a_compiled_model_takes_rows(tmp_path, model):
    rehearsal = answer_rehearsal(model, old_rows(), top_k=5, progress=False)
    usual = train(tmp_path, moved(deepcopy(model)), rehearsal).model
    compiled = train(tmp_path, moved(model), rehearsal, torch_compile=True, torch_compile_backend="aot_eager")
    assert is_compiled_module(compiled.model_wrapped)
    require_close(compiled.model, usual)


def test_mixed_precision_moves_the_weights_alike(tmp_path, model):
    model = model.float()  # autocast leaves float64 alone
    rehearsal = answer_rehearsal(model, old_rows(), top_k=5, progress=False)
    before = flat(moved(model))
    usual, mixed = (train(tmp_path, deepcopy(model), rehearsal, bf16=bf16) for bf16 in (False, True))
    step, error = flat(usual.model) - before, flat(mixed.model) - flat(usual.model)
    assert 0 < error.norm() < 0.02 * step.norm()
    kls = [logs_of(trainer)[-1]["rehearsal_kl"] for trainer in (usual, mixed)]
    assert kls[1] == pytest.approx(kls[0], rel=0.02)


def flat(model):
    return torch.cat([p.flatten() for p in weights(model).values()])


@pytest.mark.parametrize("given", ["no rows", "weight 0"])
def test_without_rehearsal_it_is_the_trainer_bit_for_bit(tmp_path, model, given):
    rehearsal = answer_rehearsal(model, old_rows(), progress=False) if given == "weight 0" else None
    usual = train(tmp_path / "usual", deepcopy(model), None)
    other = train(tmp_path / "other", deepcopy(model), rehearsal, rehearsal_weight=0.0)
    for (name, p), q in zip(usual.model.named_parameters(), other.model.parameters(), strict=True):
        assert torch.equal(p, q), name
    assert all("rehearsal_kl" not in entry for entry in other.state.log_history)


def test_another_model_than_the_one_that_answered_is_told_of(tmp_path, model, caplog):
    rehearsal = answer_rehearsal(model, old_rows(), progress=False)
    with caplog.at_level(logging.WARNING):
        train(tmp_path, deepcopy(model), rehearsal)
        assert "another model" not in caplog.text
        for p in model.parameters():
            p.data.mul_(3)
        train(tmp_path, model, rehearsal)
    assert "another model gave them" in caplog.text

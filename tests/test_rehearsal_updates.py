"""What a training step with rehearsal rows does to the weights, against old and new model run whole on their own."""

from copy import deepcopy

import pytest
import torch
from conftest import LENGTH, VOCAB
from oracles import truncated_divergence
from small_runs import BATCH, LR, ScaledTrainer, Stream, arguments, exact_loss, small_model, spread_consolidation, weights

from ewc_hf import EWCTrainer
from ewc_hf.rehearsal import answer_rehearsal, order

ROW_LENGTH, WEIGHT, ROWS = 7, 1.5, 2


@pytest.fixture
def model():
    return small_model()


def old_rows(number=6, length=ROW_LENGTH):
    draws = torch.Generator().manual_seed(9)
    return [{"input_ids": torch.randint(0, VOCAB, (length,), generator=draws).tolist()} for _ in range(number)]


def moved(model):
    """Another model than the one that answered, so that there is a divergence from the first step on."""
    draws = torch.Generator().manual_seed(3)
    for p in model.parameters():
        p.data += 0.05 * torch.randn(p.shape, generator=draws, dtype=p.dtype)
    return model


def by_hand(model, old, rows, top_k, steps, accumulation=1, seed=42):
    """SGD on the task's mean NLL and the divergence at the rows' positions, two forward passes apart."""
    stream = iter(Stream())
    for step in range(steps):
        model.zero_grad()
        ids_BT = torch.stack([next(stream)["input_ids"] for _ in range(BATCH * accumulation)])
        task = exact_loss(model(input_ids=ids_BT), ids_BT, ids_BT.numel())
        together = ROWS * accumulation
        chosen = order.rows_at(range(step * together, (step + 1) * together), len(rows), seed)
        ids_RT = torch.tensor([rows[index]["input_ids"] for index in chosen])
        old_log_p, new_log_p = (m(input_ids=ids_RT).logits.log_softmax(-1) for m in (old, model))
        kl = truncated_divergence(old_log_p.detach(), new_log_p, top_k).mean()
        (task + WEIGHT * kl).backward()
        for p in model.parameters():
            p.data -= LR * p.grad
    return task.item(), kl.item()


@pytest.mark.parametrize("top_k", [VOCAB, 5], ids=["all answers", "five answers and the rest"])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_steps_are_those_of_two_models_run_apart(tmp_path, model, top_k, accumulation):
    rehearsal = answer_rehearsal(model, old_rows(), top_k=top_k, progress=False)
    old, expected = deepcopy(model), moved(deepcopy(model)).train()
    task, kl = by_hand(expected, old, old_rows(), top_k, 3, accumulation)
    args = arguments(
        tmp_path, max_steps=3, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0,
        gradient_accumulation_steps=accumulation, rehearsal_weight=WEIGHT, rehearsal_rows=ROWS,
    )  # fmt: skip
    trainer = EWCTrainer(moved(model), args, train_dataset=Stream(), rehearsal=rehearsal, compute_loss_func=exact_loss)
    trainer.train()
    got = weights(trainer.model)
    for name, p in expected.named_parameters():
        assert (got[name] - p).abs().max() < 1e-10, name
    last = [logs for logs in trainer.state.log_history if "loss" in logs][-1]
    assert last["loss"] == pytest.approx(task, rel=1e-4) and last["rehearsal_kl"] == pytest.approx(kl, rel=1e-6)

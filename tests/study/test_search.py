"""The search for lambda by the library's own means."""

import logging

import optuna
import pytest
from datasets import Dataset
from tiny import SENTENCES, tiny_gpt2, tiny_tokenizer
from transformers import default_data_collator

from ewc_hf import EWCConfig, EWCTrainer, estimate_importance
from ewc_hf.data import pack
from ewc_hf.study import lambda_space, mean_nll


@pytest.fixture
def blocks():
    optuna.logging.set_verbosity(logging.ERROR)
    return pack(Dataset.from_dict({"text": SENTENCES * 8}), tiny_tokenizer(), 8)


def trainer_of(folder, blocks, books, consolidation=None, **options):
    return EWCTrainer(
        model_init=lambda: tiny_gpt2(),
        args=EWCConfig(str(folder), use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, **options),
        consolidation=consolidation,
        train_dataset=blocks,
        eval_dataset=blocks,
        processing_class=tiny_tokenizer(),
        retention_texts={"books": books},
        data_collator=default_data_collator,
    )


def test_with_optuna(tmp_path, blocks):
    """Each trial trains with its own lambda from the same start, and is scored by both texts."""
    consolidation = estimate_importance(tiny_gpt2(), blocks, num_examples=4, progress=False)
    consolidation.own_anchor()
    trainer = trainer_of(
        tmp_path, blocks, SENTENCES[:2], consolidation, max_steps=3, learning_rate=1e-2, logging_steps=1
    )
    seen = []

    def objective(metrics):
        seen.append((trainer.args.ewc_lambda, metrics["eval_loss"], metrics["eval_books_loss"]))
        return mean_nll(metrics)

    best = trainer.hyperparameter_search(
        lambda_space(1e-2, 1e6), objective, n_trials=3, direction="minimize", backend="optuna",
        sampler=optuna.samplers.RandomSampler(seed=0),
    )  # fmt: skip
    assert len({round(ewc_lambda, 6) for ewc_lambda, *_ in seen}) == 3
    assert all(1e-2 <= ewc_lambda <= 1e6 for ewc_lambda, *_ in seen)
    scores = {ewc_lambda: (task + books) / 2 for ewc_lambda, task, books in seen}
    assert len(set(scores.values())) == 3, "all trials trained alike"
    assert best.hyperparameters["ewc_lambda"] == min(scores, key=scores.get)
    assert best.objective == pytest.approx(min(scores.values()))


def test_a_trial_with_a_budget_is_scored_where_it_ends(tmp_path, blocks):
    """And not by an evaluation during its training, before the model goes back."""
    trainer = trainer_of(
        tmp_path, blocks, ["jqxz" * 9], max_steps=4, learning_rate=0.5, eval_strategy="steps", eval_steps=4,
        max_forgetting=0.01,
    )  # fmt: skip
    seen = []

    def objective(metrics):
        seen.append(metrics["eval_books_loss"])
        return seen[-1]

    best = trainer.hyperparameter_search(
        lambda trial: {"weight_decay": trial.suggest_float("weight_decay", 0, 0.1)},
        objective, n_trials=1, direction="minimize", backend="optuna",
    )  # fmt: skip
    during, after = seen
    assert best.objective == after < during - 0.1


def test_mean_of_all_texts():
    metrics = {"eval_loss": 3.0, "eval_books_loss": 4.0, "eval_old chat_loss": 8.0, "eval_books_perplexity": 54.6}
    also = {"eval_books_bits_per_byte": 2.0, "eval_old chat_bits_per_byte": 3.0, "eval_runtime": 100.0}
    assert mean_nll({**metrics, **also}) == 5.0


@pytest.mark.parametrize(
    "metrics",
    [
        {"eval_loss": 3.0},
        {"eval_chat_loss": 3.0, "eval_mails_loss": 3.0},
        {"eval_books_loss": 3.0, "eval_books_bits_per_byte": 1.0},
    ],
)
def test_one_side_only(metrics):
    """The task alone, even of two datasets, or the retention text alone."""
    with pytest.raises(ValueError, match=r"expected the NLLs of the task and of a retention text, got .*; give the"):
        mean_nll(metrics)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (2, 1), (1, float("inf")), (-1, 1)])
def test_space(low, high):
    with pytest.raises(ValueError, match="expected 0 < low < high"):
        lambda_space(low, high)

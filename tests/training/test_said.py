"""What would have no effect, or is near to a mistake, is said."""

import gc
import logging

import pytest
import torch
from adapted_models import adapted
from small_runs import arguments, examples, small_model, spread_consolidation, weights
from transformers import ProgressCallback
from transformers.utils.notebook import NotebookProgressCallback

from ewc_hf import Consolidation, EWCConfig, EWCTrainer
from ewc_hf.rehearsal import answer_rehearsal


def consolidation_at(model):
    anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
    importance = {name: torch.ones_like(p) for name, p in anchor.items()}
    unit = {"method": "fisher", "unit": "nats per token", "labels": "ground_truth"}
    return Consolidation.create(importance, anchor, num_examples=1, num_tokens=1, **unit)


def run(folder, model=None, callbacks=None, **options):
    held = {key: options.pop(key) for key in ("consolidation", "rehearsal", "eval_dataset") if key in options}
    args = arguments(folder, EWCConfig, **options)
    trainer = EWCTrainer(model=model or small_model(), args=args, train_dataset=examples(20), **held)
    for callback in callbacks or ():
        trainer.callback_handler.callbacks.insert(0, callback)
    trainer.train()
    return trainer


@pytest.mark.parametrize("rehearses", [False, True])
def test_a_lambda_without_a_consolidation_has_no_effect_which_is_said(tmp_path, caplog, rehearses):
    rows = answer_rehearsal(small_model().float(), examples(4), progress=False) if rehearses else None
    with caplog.at_level(logging.WARNING):
        EWCTrainer(model=small_model(), args=arguments(tmp_path, ewc_lambda=3), rehearsal=rows)
    assert "ewc_lambda=3 has no effect without a consolidation, which is None" in caplog.text
    caplog.clear()
    EWCTrainer(model=small_model(), args=arguments(tmp_path, ewc_lambda=0))
    EWCTrainer(model=small_model(), args=arguments(tmp_path))
    EWCTrainer(
        model=small_model(), args=arguments(tmp_path, ewc_lambda=3), consolidation=consolidation_at(small_model())
    )
    assert not caplog.records


def test_a_model_that_begins_far_from_its_anchor_is_told(tmp_path, caplog):
    other = small_model()
    with torch.no_grad():
        for p in other.parameters():
            p += 0.3 * p.std() * torch.randn_like(p)
    with caplog.at_level(logging.WARNING):
        run(tmp_path, consolidation=consolidation_at(small_model()))
        run(tmp_path, model=small_model().bfloat16().double(), consolidation=consolidation_at(small_model()))
    assert "of their norm away" not in caplog.text, "rounding is no distance"
    with caplog.at_level(logging.WARNING):
        run(tmp_path, model=other, consolidation=consolidation_at(small_model()), ewc_coupling="loss")
    assert "% of their norm away from what they are held at" in caplog.text


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT asks for it
def test_frozen_weights_beneath_adapters_that_are_far_from_their_anchor_are_told(tmp_path, caplog):
    other = small_model()
    with torch.no_grad():
        for p in other.parameters():
            p += 0.3 * p.std() * torch.randn_like(p)
    for base, far in ((small_model(), False), (other, True)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            run(tmp_path, model=adapted(base, drawn=False), consolidation=consolidation_at(small_model()))
        assert ("% of their norm away from what they are held at" in caplog.text) == far


def test_of_weights_without_importance_the_distance_is_no_matter(tmp_path, caplog):
    consolidation = spread_consolidation(small_model())
    for name, omega in consolidation.importance.items():
        consolidation.anchor[name] = torch.where(omega > 0, dict(small_model().named_parameters())[name].detach(), 1e6)
    with caplog.at_level(logging.WARNING):
        run(tmp_path, consolidation=consolidation)
    assert "of their norm away" not in caplog.text


def test_synaptic_intelligence_that_nobody_reads_is_told(tmp_path, caplog):
    for reads in (True, False):
        with caplog.at_level(logging.WARNING):
            trainer = run(tmp_path, ewc_synaptic=True)
            if reads:
                trainer.synaptic_consolidation()
            trainer.callback_handler.callbacks.clear()
            del trainer
            gc.collect()
        assert ("The Synaptic Intelligence of the 4 steps of the last training was never read" in caplog.text) != reads


def test_the_bar_shows_what_holds_the_model(tmp_path):
    bar = ProgressCallback()
    shown = []

    class Watched(ProgressCallback):
        def on_train_end(self, *args, **kwargs):
            shown.append(self.training_bar.postfix)
            super().on_train_end(*args, **kwargs)

    bar = Watched()
    rehearsal = answer_rehearsal(small_model().float(), examples(4), progress=False)
    run(tmp_path, callbacks=[bar], consolidation=consolidation_at(small_model()), rehearsal=rehearsal)
    assert [part.split("=")[0] for part in shown[0].split(", ")] == ["Penalty", "Predicted Forgetting", "Rehearsal KL"]


@pytest.mark.parametrize(
    ("options", "first"),
    [({}, "Step"), ({"eval_strategy": "steps", "eval_steps": 1}, "Step"), ({"eval_strategy": "epoch"}, "Epoch")],
    ids=["no evaluation", "by steps", "by epochs"],
)
def test_the_table_of_a_notebook_shows_what_holds_the_model(tmp_path, options, first):
    tables = []

    class Watched(NotebookProgressCallback):
        def on_train_end(self, *args, **kwargs):
            tables.append(self.training_tracker.inner_table)
            super().on_train_end(*args, **kwargs)

    evaluated = {"eval_dataset": examples(4)} if options else {}
    trainer = run(
        tmp_path, callbacks=[Watched()], consolidation=consolidation_at(small_model()), max_steps=-1,
        num_train_epochs=2, per_device_train_batch_size=10, **options, **evaluated,
    )  # fmt: skip
    columns, *lines = tables[0]
    assert columns[0] == first and {"Training Loss", "Penalty", "Predicted Forgetting"} <= set(columns)
    logged = [log["ewc_penalty"] for log in trainer.state.log_history if "ewc_penalty" in log]
    shown = [line[columns.index("Penalty")] for line in lines]
    assert shown == (logged if first == "Step" else logged[1::2])
    assert weights(trainer.model)

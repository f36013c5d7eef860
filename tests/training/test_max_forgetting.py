"""A budget of forgetting: where a training ends that has one."""

import copy
import math
import re
from functools import cache

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from small_runs import arguments, weights
from tiny import SENTENCES, encode, tiny_gpt2, tiny_tokenizer
from transformers import Trainer, TrainerCallback, default_data_collator

from ewc_hf import EWCConfig, EWCTrainer, estimate_importance, evaluate_perplexity, generate_rehearsal
from ewc_hf.penalty import START

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT asks for it

TOKENIZER = tiny_tokenizer()
STEPS = 12


def blocks(texts, length=12):
    ids = [token for text in texts for token in encode(TOKENIZER, text)]
    rows = [torch.tensor(ids[first : first + length]) for first in range(0, len(ids) - length, 3)]
    return [{"input_ids": row, "labels": row} for row in rows]


OLD, TASK = blocks(SENTENCES), blocks([text[::-1] for text in SENTENCES])


@cache
def knowing():
    """A model that has learned the sentences."""
    model = tiny_gpt2()
    args = arguments("unused", max_steps=60, learning_rate=5e-3, per_device_train_batch_size=8)
    Trainer(model, args, train_dataset=OLD, data_collator=default_data_collator).train()
    return model


def old_model():
    return copy.deepcopy(knowing())


def trained(folder, model=None, retention_texts=None, resume=False, callbacks=(), **options):
    held = {name: options.pop(name, None) for name in ("consolidation", "rehearsal")}
    options = {"max_steps": STEPS, "learning_rate": 5e-3, "per_device_train_batch_size": 4, **options}
    trainer = EWCTrainer(
        old_model() if model is None else model,
        arguments(folder, **options),
        train_dataset=TASK,
        processing_class=TOKENIZER,
        data_collator=default_data_collator,
        eval_dataset=TASK[:4],
        callbacks=list(callbacks),
        retention_texts={"books": SENTENCES} if retention_texts is None else retention_texts,
        **held,
    )
    return trainer, trainer.train(resume_from_checkpoint=resume)


def nll(model, texts=SENTENCES):
    return evaluate_perplexity(model, TOKENIZER, texts, progress=False).nll


def holding(way):
    if way == "plain":
        return {}
    if way == "rehearsal":
        return {"rehearsal": generate_rehearsal(old_model(), TOKENIZER, num_rows=8, num_tokens=12, progress=False)}
    return {"consolidation": estimate_importance(old_model(), OLD, progress=False), "ewc_coupling": way}


@pytest.mark.parametrize("budget", [0.01, 0.03, 0.1])
@pytest.mark.parametrize("way", ["plain", "loss", "decoupled", "rehearsal"])
def test_the_model_ends_within_5_percent_below_the_budget(tmp_path, way, budget):
    trainer, output = trained(tmp_path, max_forgetting=budget, **holding(way))
    forgetting = nll(trainer.model) - nll(old_model())
    assert 0.95 * budget <= forgetting <= budget
    assert output.metrics["forgetting"] == pytest.approx(forgetting)
    assert output.metrics["forgetting_budget"] == budget
    assert trainer.state.log_history[-1]["forgetting"] == output.metrics["forgetting"]


def test_it_lies_on_the_line_to_where_a_training_without_a_budget_ends(tmp_path):
    start, (free, _) = weights(old_model()), trained(tmp_path / "free")
    kept, output = trained(tmp_path / "kept", max_forgetting=0.1)
    t = output.metrics["forgetting_t"]
    assert 0 < t < 1
    for name, end in weights(free.model).items():
        expected = torch.lerp(start[name], end, t)
        torch.testing.assert_close(weights(kept.model)[name], expected, rtol=0, atol=0)


def test_a_training_that_keeps_it_anyway_ends_where_it_did(tmp_path):
    free, _ = trained(tmp_path / "free")
    kept, output = trained(tmp_path / "kept", max_forgetting=50)
    assert output.metrics["forgetting_t"] == 1
    for name, end in weights(free.model).items():
        torch.testing.assert_close(weights(kept.model)[name], end, rtol=0, atol=0)


def test_the_text_that_loses_most_counts(tmp_path):
    texts = {"first": SENTENCES[:1], "others": SENTENCES[1:]}
    trainer, _ = trained(tmp_path, max_forgetting=0.1, retention_texts=texts)
    rises = [nll(trainer.model, documents) - nll(old_model(), documents) for documents in texts.values()]
    assert 0.095 <= max(rises) <= 0.1
    assert min(rises) < 0.09


def test_a_resumed_training_ends_at_the_same_bits(tmp_path):
    whole, _ = trained(tmp_path / "whole", max_forgetting=0.1)
    options = {"max_forgetting": 0.1, "save_strategy": "steps", "save_steps": 5}
    trained(tmp_path / "parts", **options)
    resumed, _ = trained(tmp_path / "parts", resume=str(tmp_path / "parts" / "checkpoint-5"), **options)
    for name, expected in weights(whole.model).items():
        torch.testing.assert_close(weights(resumed.model)[name], expected, rtol=0, atol=0)


@pytest.mark.parametrize("stale", [False, True], ids=["nothing there", "another run's start"])
def test_a_training_that_began_without_a_budget_cannot_be_resumed_with_one(tmp_path, stale):
    if stale:
        trained(tmp_path, max_forgetting=0.1)
    trained(tmp_path, save_strategy="steps", save_steps=5)
    got = "those of another run" if stale else "none"
    with pytest.raises(ValueError, match=rf"expected the weights that this run began with in .*_start', got {got};"):
        trained(tmp_path, resume=True, max_forgetting=0.1)


def test_the_model_card_tells_what_was_measured_after_the_way_back_only(tmp_path):
    how = {"eval_strategy": "steps", "eval_steps": 6, "eval_on_start": True, "max_forgetting": 0.03}
    trainer, _ = trained(tmp_path, **how)
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert re.search(r"perplexity of books \| [\d.]+ +\| - ", card)
    trainer.evaluate()
    trainer.create_model_card()
    after = f"{math.exp(nll(trainer.model)):.4g}"
    assert re.search(rf"perplexity of books \| [\d.]+ +\| {after} ", (tmp_path / "README.md").read_text())


@pytest.mark.parametrize("targets", [["c_attn", "c_fc"], ["c_attn", "wte"]], ids=["linear", "embedding"])
def test_of_adapters_the_change_is_a_part_of_what_was_learned(tmp_path, targets):
    config = LoraConfig(r=3, lora_alpha=12, target_modules=targets, fan_in_fan_out=True)
    ends = []
    for folder, budget in (("free", None), ("kept", 0.1)):
        torch.manual_seed(1)
        model = get_peft_model(old_model(), config)
        trainer, output = trained(tmp_path / folder, model, max_forgetting=budget, learning_rate=2e-2)
        ends.append(weights(trainer.model.merge_and_unload()))
    assert 0.095 <= output.metrics["forgetting"] <= 0.1
    start, t = weights(old_model()), output.metrics["forgetting_t"]
    for name, end in ends[0].items():
        torch.testing.assert_close(ends[1][name], torch.lerp(start[name], end, t), rtol=0, atol=1e-6)


def test_adapters_that_have_learned_already_are_refused(tmp_path):
    model = get_peft_model(old_model(), LoraConfig(r=3, target_modules=["c_attn"], fan_in_fan_out=True))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.01)
    with pytest.raises(ValueError, match=r"expected adapters that change nothing at the beginning, B or A being 0"):
        trained(tmp_path, model, max_forgetting=0.1)


def test_other_adapters_are_refused_with_what_to_do(tmp_path):
    config = IA3Config(target_modules=["c_attn"], feedforward_modules=[], fan_in_fan_out=True)
    model = get_peft_model(old_model(), config)
    with pytest.raises(ValueError, match=r"max_forgetting: expected .*; or leave max_forgetting out, and slide the"):
        trained(tmp_path, model, max_forgetting=0.1)


@pytest.mark.filterwarnings("ignore:The BCa confidence interval")  # of what is no number
def test_adapters_that_diverged_go_back_to_the_start(tmp_path):
    class Diverging(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.data.fill_(float("nan"))

    model = get_peft_model(old_model(), LoraConfig(r=3, target_modules=["c_attn"], fan_in_fan_out=True))
    trainer, output = trained(tmp_path, model, max_forgetting=0.1, max_steps=1, callbacks=[Diverging()])
    assert output.metrics["forgetting"] == output.metrics["forgetting_t"] == 0
    assert nll(trainer.model.merge_and_unload()) == pytest.approx(nll(old_model()), abs=1e-6)


@pytest.mark.filterwarnings("ignore:The BCa confidence interval")  # of what is no number
def test_a_text_whose_loss_is_no_number_counts_most(tmp_path):
    class BreakingLatePositions(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            model.transformer.wpe.weight.data[8:] = math.nan

    texts = {"short": ["Snow"], "long": SENTENCES}
    callbacks = [BreakingLatePositions()]
    _, output = trained(tmp_path, max_forgetting=50, max_steps=1, retention_texts=texts, callbacks=callbacks)
    assert output.metrics["forgetting"] == output.metrics["forgetting_t"] == 0


def test_a_training_that_begins_anew_after_some_steps_has_its_first_start(tmp_path):
    """As with `auto_find_batch_size`, where the memory did not suffice."""

    class OutOfMemory(TrainerCallback):
        failed = False

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 6 and not self.failed:
                self.failed = True
                raise RuntimeError("CUDA out of memory.")

    trainer, _ = trained(tmp_path, max_forgetting=0.03, auto_find_batch_size=True, callbacks=[OutOfMemory()])
    forgetting = nll(trainer.model) - nll(old_model())
    assert 0.95 * 0.03 <= forgetting <= 0.03


def test_without_retention_texts_it_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="expected retention_texts, on which the forgetting is measured"):
        trained(tmp_path, max_forgetting=0.1, retention_texts={})
    assert not (tmp_path / START).exists()


@pytest.mark.parametrize("budget", [0, -1, float("nan"), "much"])
def test_what_is_no_budget_is_refused(tmp_path, budget):
    with pytest.raises(ValueError, match=f"expected a positive, finite max_forgetting, .* got {budget}; None is"):
        EWCConfig(str(tmp_path), max_forgetting=budget)


def test_beside_synaptic_intelligence_it_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected max_forgetting without ewc_synaptic, got both"):
        EWCConfig(str(tmp_path), max_forgetting=0.1, ewc_synaptic=True)


def test_texts_that_cannot_be_measured_are_told_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="expected a document with a token to predict"):
        trained(tmp_path, max_forgetting=0.1, retention_texts={"books": []}, save_strategy="steps", save_steps=1)
    assert not (tmp_path / "checkpoint-1").exists()


def test_what_the_old_model_wrote_is_text_to_measure_on(tmp_path):
    rows = generate_rehearsal(old_model(), TOKENIZER, num_rows=16, num_tokens=12, seed=1, progress=False)
    texts = rows.texts(TOKENIZER)
    assert len(texts) == 16 and all("<|endoftext|>" not in text for text in texts)
    _, output = trained(tmp_path, max_forgetting=0.1, retention_texts={"own": texts})
    assert 0.095 <= output.metrics["forgetting"] <= 0.1

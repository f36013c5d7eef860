"""Real training runs on a tiny float64 model, against a loop that is written out by hand."""

import hashlib
import json
import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from tiny import SENTENCES, tiny_gpt2, tiny_tokenizer
from torch.utils.data import IterableDataset
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from ewc_hf import (
    Consolidation,
    EWCConfig,
    EWCFields,
    EWCMixin,
    EWCTrainer,
    evaluate_perplexity,
    l2_to_start,
)

STEPS, BATCH, LENGTH, VOCAB = 3, 2, 8, 30


class Stream(IterableDataset):
    """The same examples in the same order, whatever the seed."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(5)
        while True:
            ids = torch.randint(0, VOCAB, (LENGTH,), generator=generator)
            yield {"input_ids": ids, "labels": ids}


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=1,
        n_embd=8,
        n_head=2,
        vocab_size=VOCAB,
        n_positions=16,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config).double()


@pytest.fixture
def consolidation(model):
    """Importance over several magnitudes, zeros among them, and an anchor away from the model's weights."""
    generator = torch.Generator().manual_seed(1)
    importance, anchor = {}, {}
    for name, p in model.named_parameters():
        draw = torch.rand(p.shape, generator=generator, dtype=torch.float64)
        importance[name] = torch.where(draw < 0.1, 0.0, 10 ** (4 * draw - 3))
        anchor[name] = p.detach() + 0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return Consolidation.create(
        importance, anchor, method="fisher", unit="nats per token", num_examples=1, num_tokens=7, labels="ground_truth"
    )


def config(folder, **options):
    options = {
        "max_steps": STEPS, "per_device_train_batch_size": BATCH, "learning_rate": 1e-2, "report_to": "none",
        "use_cpu": True, "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True,
        "dataloader_pin_memory": False, **options,
    }  # fmt: skip
    return EWCConfig(str(folder), **options)


def optimizer_of(kind, model):
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=1e-2)
    if kind == "momentum":
        return torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, dampening=0.2)
    return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01, amsgrad=kind == "amsgrad")


def exact_loss(outputs, labels, num_items_in_batch):
    """Cross-entropy in float64; transformers' own rounds the logits to float32."""
    log_p = outputs.logits[:, :-1].log_softmax(-1)
    return -log_p.gather(-1, labels[:, 1:, None]).sum() / num_items_in_batch


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


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
    args = config(
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
    args = config(tmp_path, ewc_coupling="loss", ewc_lambda=3.0, **options)
    by_hand = deepcopy(model)
    train_by_hand(by_hand, consolidation, args, optimizer_of("sgd", by_hand))
    train(model, args, consolidation, optimizer_of("sgd", model))
    for name, weight in weights(model).items():
        torch.testing.assert_close(weight, by_hand.get_parameter(name).detach(), rtol=1e-10, atol=1e-10)


def test_a_huge_lambda_lands_on_the_anchor_without_overshooting(tmp_path, model, consolidation):
    args = config(tmp_path, ewc_coupling="decoupled", ewc_lambda=1e300)
    EWCTrainer(model, args, consolidation=consolidation, train_dataset=Stream()).train()
    for name, weight in weights(model).items():
        important = consolidation.importance[name] > 0
        torch.testing.assert_close(weight[important], consolidation.anchor[name][important], rtol=0, atol=1e-12)


def test_without_stabilization_a_huge_lambda_explodes_under_sgd(tmp_path, model, consolidation):
    args = config(tmp_path, ewc_coupling="loss", ewc_lambda=1e6, ewc_stabilized=False, max_grad_norm=0.0)
    train(model, args, consolidation, optimizer_of("sgd", model))
    assert max(weight.abs().max() for weight in weights(model).values()) > 1e6


def examples(number=12):
    stream = iter(Stream())
    return [next(stream) for _ in range(number)]


def run(trainer_class, model, args, **more):
    """Train a copy of the model and return what can be compared: weights, logs, callbacks and files."""
    set_seed(args.seed)
    copy = deepcopy(model)
    trainer = trainer_class(copy, args, train_dataset=examples(), eval_dataset=examples(4), **more)
    trainer.train()
    logs = [
        {k: v for k, v in log.items() if "runtime" not in k and "per_second" not in k}
        for log in trainer.state.log_history
    ]
    callbacks = [type(callback) for callback in trainer.callback_handler.callbacks]
    files = {
        str(path.relative_to(args.output_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(args.output_dir).rglob("*"))
        if path.is_file()
    }
    random_state = torch.get_rng_state()
    return weights(copy), logs, callbacks, files, random_state


@pytest.mark.parametrize("case", ["no consolidation", "lambda 0"])
def test_without_a_penalty_it_is_the_trainer_bit_for_bit(tmp_path, model, consolidation, case):
    args = config(tmp_path, ewc_lambda=0.0 if case == "lambda 0" else 5.0, save_strategy="steps", save_steps=2)
    expected = run(Trainer, model, args)
    more = {"consolidation": consolidation} if case == "lambda 0" else {}
    got = run(EWCTrainer, model, args, **more)
    for name in expected[0]:
        assert torch.equal(expected[0][name], got[0][name])
    assert expected[1:3] == got[1:3]
    assert {name for name in expected[3] if expected[3][name] != got[3].get(name)} == set()
    assert expected[3].keys() == got[3].keys()
    assert torch.equal(expected[4], got[4])


def test_evaluation_loss_is_without_the_penalty(tmp_path, model, consolidation):
    args = config(tmp_path, ewc_coupling="loss", ewc_lambda=1e4, max_steps=1, eval_strategy="steps", eval_steps=1)
    trainer = EWCTrainer(model, args, consolidation=consolidation, train_dataset=Stream(), eval_dataset=examples(4))
    trainer.train()
    (during,) = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    assert during == Trainer(model, args, eval_dataset=examples(4)).evaluate()["eval_loss"]


@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
def test_logs_carry_the_penalty_at_logging_steps_only(tmp_path, model, consolidation, coupling):
    args = config(tmp_path, ewc_coupling=coupling, ewc_lambda=3.0, logging_steps=STEPS)
    trainer = EWCTrainer(model, args, consolidation=consolidation, train_dataset=Stream())
    trainer.train()
    alpha = args.learning_rate if coupling == "loss" else 0
    penalty = forgetting = 0.0
    for name, p in model.named_parameters():
        omega, moved = consolidation.importance[name], (p.detach() - consolidation.anchor[name]) ** 2
        penalty += (3.0 / 2 * omega / (1 + alpha * 3.0 * omega) * moved).sum().item()
        forgetting += (omega * moved).sum().item() / 2
    logged = [log for log in trainer.state.log_history if "ewc_penalty" in log]
    assert len(logged) == 1 and "loss" in logged[0]
    assert logged[0]["ewc_penalty"] == pytest.approx(penalty, rel=1e-10)
    assert logged[0]["ewc_predicted_forgetting"] == pytest.approx(forgetting, rel=1e-10)


def test_only_an_importance_in_nats_predicts_forgetting(tmp_path, model):
    trainer = EWCTrainer(model, config(tmp_path), consolidation=l2_to_start(model), train_dataset=Stream())
    trainer.train()
    assert "ewc_penalty" in trainer.state.log_history[0]
    assert "ewc_predicted_forgetting" not in trainer.state.log_history[0]


@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, model, consolidation, coupling):
    def trained(folder, resume=None):
        args = config(
            tmp_path / folder, ewc_coupling=coupling, ewc_lambda=3.0, max_steps=6, save_strategy="steps", save_steps=3
        )
        copy = deepcopy(model)
        trainer = EWCTrainer(copy, args, consolidation=consolidation, train_dataset=examples())
        trainer.train(resume_from_checkpoint=resume)
        return weights(copy)

    whole = trained("whole")
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    resumed = trained("resumed", str(checkpoint))
    for name in whole:
        assert torch.equal(whole[name], resumed[name])
    recorded = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]["ewc"]
    assert recorded["anchor"] == consolidation.metadata["anchor"]
    assert not list(tmp_path.rglob("ewc_*"))


def test_resuming_with_another_consolidation_is_refused(tmp_path, model, consolidation):
    args = config(tmp_path, save_strategy="steps", save_steps=3)
    EWCTrainer(model, args, consolidation=consolidation, train_dataset=Stream()).train()
    other = EWCTrainer(model, args, consolidation=l2_to_start(model), train_dataset=Stream())
    with pytest.raises(ValueError, match="pass the same one to resume"):
        other.train(resume_from_checkpoint=True)


class ScaledTrainer(EWCTrainer):
    """Uses torch's own gradient scaler on the CPU, where accelerate makes none."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)


@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
def test_a_scaled_loss_gives_the_same_update(tmp_path, model, consolidation, coupling):
    results = []
    for trainer_class in (EWCTrainer, ScaledTrainer):
        copy = deepcopy(model).float()
        args = config(tmp_path, ewc_coupling=coupling, ewc_lambda=3.0, max_grad_norm=0.0)
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
    args = config(tmp_path, ewc_coupling=coupling, ewc_lambda=3.0, max_steps=steps, optim="adamw_torch_fused")
    trainer = OverflowsLast(copy, args, consolidation=consolidation, train_dataset=Stream())
    start = weights(copy)
    trainer.train()
    for name, weight in weights(copy).items():
        assert torch.equal(weight, trainer.before[name])
    moved = any(not torch.equal(weight, start[name]) for name, weight in weights(copy).items())
    assert moved == (steps == 2)


def test_training_twice_couples_once(tmp_path, model, consolidation):
    args = config(tmp_path, ewc_coupling="decoupled", ewc_lambda=3.0)
    trainer = EWCTrainer(model, args, consolidation=consolidation, train_dataset=Stream())
    trainer.train()
    assert not trainer.optimizer.optimizer._optimizer_step_post_hooks
    trainer.train()
    assert trainer._penalty is None


def test_it_takes_plain_arguments_and_a_folder(tmp_path, model, consolidation):
    consolidation.save_pretrained(tmp_path / "consolidation")
    args = TrainingArguments(
        str(tmp_path), max_steps=1, logging_steps=1, use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False
    )
    trainer = EWCTrainer(model, args, consolidation=tmp_path / "consolidation", train_dataset=Stream())
    trainer.train()
    assert trainer.state.log_history[0]["ewc_penalty"] > 0


class EWCSeq2SeqTrainer(EWCMixin, Seq2SeqTrainer):
    """Another trainer with the penalty."""


def test_it_mixes_into_other_trainers(tmp_path, model, consolidation):
    args = EWCSeq2SeqConfig(
        str(tmp_path), ewc_lambda=1e300, max_steps=1, use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False
    )
    EWCSeq2SeqTrainer(model, args, consolidation=consolidation, train_dataset=Stream()).train()
    important = consolidation.importance["transformer.wpe.weight"] > 0
    anchor = consolidation.anchor["transformer.wpe.weight"]
    assert torch.equal(model.transformer.wpe.weight[important], anchor[important])


@dataclass
class EWCSeq2SeqConfig(EWCFields, Seq2SeqTrainingArguments):
    """Its options."""


def retaining(tmp_path, eval_dataset, **options):
    tokenizer, model = tiny_tokenizer(), tiny_gpt2()
    return EWCTrainer(
        model,
        config(tmp_path, **options),
        eval_dataset=eval_dataset,
        train_dataset=Stream(),
        processing_class=tokenizer,
        data_collator=default_data_collator,
        retention_texts={"books": SENTENCES},
    )


@pytest.mark.parametrize("several", [False, True], ids=["one dataset", "several datasets"])
def test_evaluation_reads_retention_texts_once_and_callbacks_see_them(tmp_path, several):
    class Seen(TrainerCallback):
        metrics: ClassVar[list] = []

        def on_evaluate(self, *args, metrics, **kwargs):
            self.metrics.append(metrics)

    dataset = examples(4)
    trainer = retaining(tmp_path, {"a": dataset, "b": dataset} if several else dataset)
    trainer.add_callback(Seen())
    metrics = trainer.evaluate()
    expected = evaluate_perplexity(trainer.model, trainer.processing_class, SENTENCES, progress=False)
    assert metrics["eval_books_perplexity"] == pytest.approx(expected.perplexity)
    assert metrics["eval_books_loss"] == pytest.approx(expected.nll)
    assert metrics["eval_books_bits_per_byte"] == pytest.approx(expected.bits_per_byte)
    assert ["eval_books_loss" in seen for seen in Seen.metrics] == ([True, False] if several else [True])
    assert sum("eval_books_loss" in log for log in trainer.state.log_history) == 1


def test_the_best_model_is_not_the_one_that_forgot_most(tmp_path):
    with pytest.raises(ValueError, match="greater_is_better=False for 'books_perplexity'"):
        retaining(tmp_path, examples(4), metric_for_best_model="eval_books_perplexity", eval_strategy="no")
    retaining(tmp_path, examples(4), metric_for_best_model="eval_books_loss")


def test_retention_texts_need_a_tokenizer(tmp_path, model):
    with pytest.raises(ValueError, match="pass `processing_class=tokenizer`"):
        EWCTrainer(model, config(tmp_path), retention_texts={"books": SENTENCES})


def test_an_optimizer_that_steps_no_weight_is_refused(tmp_path, model, consolidation):
    stray = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    args = config(tmp_path, ewc_coupling="loss")
    trainer = EWCTrainer(model, args, consolidation=consolidation, train_dataset=Stream(), optimizers=(stray, None))
    with pytest.raises(ValueError, match="expected an optimizer that steps weights of the consolidation, got SGD"):
        trainer.train()


def test_sharding_engines_are_refused(tmp_path, model, consolidation):
    class Sharded(EWCTrainer):
        def create_accelerator_and_postprocess(self):
            super().create_accelerator_and_postprocess()
            self.is_fsdp_enabled = True

    with pytest.raises(ValueError, match="expected FSDP of version 2, got version 1"):
        Sharded(model, config(tmp_path), consolidation=consolidation, train_dataset=Stream())

"""One run of a study: a model that is fine-tuned in one of the ways."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, interleave_datasets
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, default_data_collator, set_seed
from transformers.pytorch_utils import Conv1D

from ..config import EWCConfig
from ..consolidation import Consolidation
from ..penalty import START
from ..rehearsal import TOP_K, Rehearsal, answers_of, kl_divergence
from ..storage import load_causal_lm
from ..trainer import EWCTrainer
from .settings import Setting
from .token_weights import LOSSES
from .ways import Way


@dataclass(frozen=True)
class Memory:
    """What is left of the old model and its text, for the ways to fine-tune to use.

    Attributes:
        importance: the setting's, or its folder; None where it has none.
        rows: its rehearsal rows; None where it has none.
        old_text: blocks like the pretraining text.
        load: loads the pretrained model.
        budget_texts: held-out old text, on which a run with `max_forgetting` keeps it.
        tokenizer: the model's, for these.
    """

    importance: Path | Consolidation | None
    rows: Rehearsal | None
    old_text: Dataset
    load: Callable[[], PreTrainedModel]
    budget_texts: Sequence[str] = ()
    tokenizer: PreTrainedTokenizerBase | None = None


def load_pretrained(model: str, training: EWCConfig, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a checkpoint in float32, in which small pulls do not round away; `bf16=True` still computes in bfloat16."""
    loaded: PreTrainedModel = load_causal_lm(model, trust_remote_code=trust_remote_code).to(training.device)
    return loaded


def fine_tune(
    setting: Setting, model: PreTrainedModel, args: EWCConfig, examples: Dataset, memory: Memory
) -> tuple[PreTrainedModel, float]:
    """Fine-tune a model in one way.

    Args:
        setting: the way.
        model: the pretrained model, which is trained in place.
        args: of this run: the setting's overrides and the seed are in it.
        examples: blocks of the task.
        memory: what it may use.

    Returns:
        The model, adapters merged into it, and the median of a training step in seconds.
    """
    trained: Any = model
    trainer_class: type[EWCTrainer] = EWCTrainer
    options: dict[str, Any] = {}
    if setting.way is Way.REPLAY:
        examples = _mixed(examples, memory.old_text, setting, args)
    elif setting.way is Way.SELF_REPLAY:
        assert memory.rows is not None
        ids = memory.rows.rows.with_format(None)["input_ids"]
        examples = _mixed(examples, Dataset.from_dict({"input_ids": ids, "labels": ids}), setting, args)
    elif setting.way is Way.LEARNING_WITHOUT_FORGETTING:
        trainer_class, options = _LearningWithoutForgetting, {"old": memory.load(), "weight": setting.strength}
    if setting.rank is not None:
        set_seed(args.seed)  # which adapters begin with
        trained = _with_adapters(model, setting.rank)
    if args.max_forgetting is not None:
        options |= {"retention_texts": {"budget": memory.budget_texts}, "processing_class": memory.tokenizer}
    clock = _StepClock()
    trainer = trainer_class(
        model=trained,
        args=args,
        consolidation=memory.importance,
        rehearsal=memory.rows if setting.rehearses else None,
        train_dataset=examples,
        data_collator=default_data_collator,
        compute_loss_func=LOSSES.get(setting.way),
        callbacks=[clock],
        **options,
    )
    try:
        trainer.train()
    finally:
        shutil.rmtree(Path(args.output_dir, START), ignore_errors=True)  # of a budget
    return (model if setting.rank is None else trained.merge_and_unload()), statistics.median(clock.seconds)


def _mixed(examples: Dataset, others: Dataset, setting: Setting, args: EWCConfig) -> Dataset:
    """Return the task's blocks with a share of others, at random places."""
    assert setting.strength is not None
    examples, others = (dataset.select_columns(["input_ids", "labels"]) for dataset in (examples, others))
    return interleave_datasets(
        [examples.shuffle(seed=args.seed), others.shuffle(seed=args.seed).cast(examples.features)],
        probabilities=[1 - setting.strength, setting.strength],
        seed=args.seed,
        stopping_strategy="all_exhausted",
    )


def _with_adapters(model: PreTrainedModel, rank: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ValueError("expected peft for a setting with adapters, got none; `pip install peft`") from error
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's weights lie so
    )
    return get_peft_model(model, config)


class _LearningWithoutForgetting(EWCTrainer):
    """Adds `weight * KL(old || new)` at the task's own positions, as rehearsal does at its rows'.

    The old model runs beside the new one, since a run of less than an epoch sees each block once.
    """

    def __init__(self, *args: Any, old: PreTrainedModel, weight: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._old, self._weight = old.eval(), weight

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Add the divergence, of which each micro-batch has its share of the step's."""
        ids_BT = inputs["input_ids"]
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training:
            with torch.no_grad():
                answers = answers_of(self._old(input_ids=ids_BT).logits, TOP_K)
            share = 1 if num_items_in_batch is None else 1 / self.current_gradient_accumulation_steps
            loss = loss + self._weight * share * kl_divergence(outputs.logits, answers).mean()
        return (loss, outputs) if return_outputs else loss


class _StepClock(TrainerCallback):
    """Measures how long each step takes."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self._start)

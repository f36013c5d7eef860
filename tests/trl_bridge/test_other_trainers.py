"""`EWCMixin` before TRL's trainers of preferences and rewards: weights move, are held, and the penalty is logged."""

from dataclasses import make_dataclass

import pytest
import torch
from chats import arguments, consolidation, displacement, model, tokenizer
from datasets import Dataset
from tiny import tiny_gpt2
from transformers import GPT2ForSequenceClassification
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer

from ewc_hf import EWCFields, EWCMixin

pytestmark = [
    pytest.mark.usefixtures("datasets_cache"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning"),  # TRL asks for it
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
]


class EWCDPOTrainer(EWCMixin, DPOTrainer):
    pass


class EWCGRPOTrainer(EWCMixin, GRPOTrainer):
    pass


class EWCRewardTrainer(EWCMixin, RewardTrainer):
    pass


def preferences():
    return Dataset.from_list(
        [
            {"prompt": "How are you?", "chosen": f" I am well, {word}.", "rejected": " Snow fell."}
            for word in ("thank you", "today", "and the stars", "and the ships") * 4
        ]
    )


def classifier():
    config = tiny_gpt2(64).config
    config.num_labels, config.pad_token_id = 1, 0
    torch.manual_seed(0)
    return GPT2ForSequenceClassification(config)


def lengths(completions, **_):
    return [float(len(completion)) for completion in completions]


GROUPS = {"num_generations": 2, "max_completion_length": 8, "generation_batch_size": 4}
RUNS = {
    "DPO": (EWCDPOTrainer, DPOConfig, model, {}, lambda: {"ref_model": model()}),
    "GRPO": (EWCGRPOTrainer, GRPOConfig, model, GROUPS, lambda: {"reward_funcs": lengths}),
    "reward": (EWCRewardTrainer, RewardConfig, classifier, {}, dict),
}


@pytest.mark.parametrize(("kind", "config", "build", "options", "more"), RUNS.values(), ids=RUNS.keys())
def test_weights_move_and_are_held(tmp_path, kind, config, build, options, more):
    held_config = make_dataclass("HeldConfig", [], bases=(EWCFields, config))
    moved = []
    for ewc_lambda in (0, 1e5):
        args = arguments(held_config, tmp_path, ewc_lambda=ewc_lambda, **options)
        trainer = kind(
            build(), args=args, train_dataset=preferences(), processing_class=tokenizer(),
            consolidation=consolidation(build()), **more(),
        )  # fmt: skip
        trainer.train()
        moved.append(displacement(trainer.model, build()))
    assert 0 < moved[1] < moved[0] / 4
    assert [log["ewc_penalty"] for log in trainer.state.log_history if "ewc_penalty" in log][-1] > 0

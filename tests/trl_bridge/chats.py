"""Chats that a tiny GPT-2 learns through TRL, and runs of a few steps."""

from datasets import Dataset
from templates import TEMPLATES, templated_tokenizer
from tiny import tiny_gpt2
from torch import nn

from ewc_hf import Consolidation, generate_rehearsal

CHATS = [
    [{"role": "user", "content": f"How are {word}?"}, {"role": "assistant", "content": f"{word} fell on the bridge."}]
    for word in ("you", "ships", "stars", "rivers", "snow", "stones", "keepers", "days")
]
MODEL_LENGTH = 64


def tokenizer():
    return templated_tokenizer(TEMPLATES["headers"], marked=True)


def model():
    """Without dropout, so that rows beside others change nothing of these."""
    drawn = tiny_gpt2(MODEL_LENGTH)
    for module in drawn.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return drawn


def dataset(number=32):
    return Dataset.from_list([{"messages": CHATS[index % len(CHATS)]} for index in range(number)])


def consolidation(of=None):
    """As strong on every weight, so that a large lambda holds them all."""
    tensors = dict((of or model()).named_parameters())
    ones = {name: p.detach().clone().fill_(1) for name, p in tensors.items()}
    anchor = {name: p.detach().clone() for name, p in tensors.items()}
    return Consolidation.create(
        ones, anchor, method="fisher", unit="nats per token", num_examples=1, num_tokens=1, labels="ground_truth"
    )


def rehearsal():
    return generate_rehearsal(model(), tokenizer(), num_rows=8, num_tokens=16, progress=False)


def arguments(kind, folder, **options):
    options = {
        "max_steps": 3, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "report_to": "none", "use_cpu": True,
        "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "dataloader_pin_memory": False,
        "lr_scheduler_type": "constant", **options,
    }  # fmt: skip
    return kind(str(folder), **options)


def displacement(trained, start=None):
    """How far all weights are from where they began."""
    before = dict((start or model()).named_parameters())
    return sum((p.detach() - before[name].detach()).square().sum().item() for name, p in trained.named_parameters())

"""Runs of a few steps on a small float64 model without dropout and one stream of tokens, on the CPU."""

import torch
from conftest import LENGTH, VOCAB
from torch.utils.data import IterableDataset
from transformers import GPT2Config, GPT2LMHeadModel

from ewc_hf import Consolidation, EWCConfig, EWCTrainer

STEPS, BATCH, LR = 4, 2, 1e-2


def small_model():
    """Without dropout, so that a loop written by hand sees the same gradients."""
    config = GPT2Config(
        n_layer=1, n_embd=8, n_head=2, vocab_size=VOCAB, n_positions=16, initializer_range=0.2,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    return GPT2LMHeadModel(config).double()


def spread_consolidation(model):
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


class Stream(IterableDataset):
    """The same examples in the same order, whatever the seed."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(5)
        while True:
            ids = torch.randint(0, VOCAB, (LENGTH,), generator=generator)
            yield {"input_ids": ids, "labels": ids}


def examples(number=12):
    stream = iter(Stream())
    return [next(stream) for _ in range(number)]


def arguments(folder, kind=EWCConfig, **options):
    options = {
        "max_steps": STEPS, "per_device_train_batch_size": BATCH, "learning_rate": LR, "report_to": "none",
        "use_cpu": True, "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True,
        "dataloader_pin_memory": False, **options,
    }  # fmt: skip
    return kind(str(folder), **options)


def exact_loss(outputs, labels, num_items_in_batch):
    """Cross-entropy in float64; transformers' own rounds the logits to float32."""
    log_p = outputs.logits[:, :-1].log_softmax(-1)
    return -log_p.gather(-1, labels[:, 1:, None]).sum() / num_items_in_batch


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


class ScaledTrainer(EWCTrainer):
    """Uses torch's own gradient scaler on the CPU, where accelerate makes none."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def _clip_grad_norm(self, model):
        self.accelerator.scaler.unscale_(self.optimizer.optimizer)  # as accelerate does under fp16
        return super()._clip_grad_norm(model)

"""What is trained and estimated in several processes and in one, and the engines' options for it."""

from dataclasses import asdict, dataclass
from functools import partial

import torch
from architectures import causal_model
from conftest import gpt2, llama
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from ewc_hf import Consolidation

MODELS = {"gpt2": gpt2, "llama": llama, "mixtral": partial(causal_model, "Mixtral")}
STEPS, LENGTH, VOCAB, GLOBAL_BATCH = 5, 9, 40, 8
HELD = 1e30
"""A lambda at which a weight stays where it is, in any precision."""


def hide_some(examples):
    """Labels that depend on torch's random numbers, which are others in each process."""
    ids = torch.stack([example["input_ids"][:2] for example in examples])
    return {"input_ids": ids, "labels": ids.masked_fill(torch.rand(ids.shape) < 0.3, -100)}


@dataclass(frozen=True)
class Case:
    """One training."""

    engine: str
    coupling: str
    accumulation: int = 1
    optimizer: str = "sgd"
    ewc_lambda: float = 3.0
    bf16: bool = False

    @property
    def model(self):
        """GPT-2 is tied; but the true gradient of its key biases is zero, and Adam makes a step of their round-off."""
        return "gpt2" if self.optimizer == "sgd" else "llama"

    @property
    def dtype(self):
        """DeepSpeed has no float64."""
        exact = self.optimizer == "adamw" and not self.engine.startswith("zero") and not self.bf16
        return torch.float64 if exact else torch.float32

    @property
    def name(self):
        return "-".join(str(value) for value in asdict(self).values())


COUPLINGS = {engine: ("loss", "decoupled") for engine in ("ddp", "load", "fsdp2")} | {
    f"zero{stage}": ("decoupled",) for stage in (1, 2, 3)
}
CASES = [
    Case(engine, coupling, accumulation, optimizer)
    for engine, couplings in COUPLINGS.items()
    for coupling in couplings
    for accumulation in (1, 2)
    for optimizer in ("sgd", "adamw")
]
HELD_CASES = [Case(engine, "decoupled", 1, "adamw", HELD, bf16=True) for engine in COUPLINGS if engine != "load"]
RESUMED = ("ddp", "fsdp2", "zero1", "zero2", "zero3")
ESTIMATES = {
    "fisher": ("gpt2", {}),
    "fisher-llama": ("llama", {}),
    "sampled": ("gpt2", {"labels": "sampled"}),
    "mas": ("gpt2", {"method": "mas"}),
    "experts": ("mixtral", {}),
    "random collator": ("gpt2", {"data_collator": hide_some}),
    "signal": ("gpt2", {"method": "signal"}),
}
HYBRID_ESTIMATES = ("fisher", "mas", "experts")
"""Those of models of which each half of the processes holds a copy in parts."""


WORDS = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(WordLevel({f"w{token}": token for token in range(VOCAB)}, unk_token="w0")),
    eos_token="w0",
    pad_token="w0",
)
"""A word a token."""
WORDS.backend_tokenizer.pre_tokenizer = WhitespaceSplit()


class Tokens(Dataset):
    """The same random tokens for everybody."""

    def __init__(self):
        self.ids = torch.randint(0, VOCAB, (64, LENGTH), generator=torch.Generator().manual_seed(3))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


def ragged():
    """Thirteen examples of different lengths, which no number of processes divides."""
    draws = torch.Generator().manual_seed(5)
    lengths = torch.randint(2, LENGTH, (13,), generator=draws).tolist()
    return [{"input_ids": torch.randint(0, VOCAB, (length,), generator=draws)} for length in lengths]


def exact_loss(outputs, labels, num_items_in_batch=None):
    """transformers' own would round the logits of float64 models to float32."""
    logits = outputs.logits[:, :-1].flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / num_items_in_batch


def write_models(folder):
    """Write each model with a consolidation beside it, importance over several magnitudes, none of it zero."""
    for kind in ("gpt2", "llama"):
        for dtype in (torch.float32, torch.float64):
            model, draws = MODELS[kind]().to(dtype), torch.Generator().manual_seed(1)
            importance = {
                name: 10 ** (3 * torch.rand(p.shape, generator=draws, dtype=torch.float64) - 2.5)
                for name, p in model.named_parameters()
            }
            consolidation = Consolidation.create(
                importance,
                {name: p.detach() for name, p in model.named_parameters()},
                method="fisher", unit="nats per token", num_examples=1, num_tokens=1,
            )  # fmt: skip
            model.config.update(dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0))
            model.save_pretrained(folder / f"{kind}-{dtype}")
            consolidation.save_pretrained(folder / f"{kind}-{dtype}")


def engine_options(case):
    if case.engine == "fsdp2":
        return {"fsdp": True, "fsdp_config": {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}}
    if not case.engine.startswith("zero"):
        return {}
    zero = {"stage": int(case.engine[-1]), "stage3_gather_16bit_weights_on_model_save": True}
    batch = dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu"), "auto")
    return {
        "deepspeed": {
            "zero_optimization": zero,
            "bf16": {"enabled": case.bf16},
            "gradient_clipping": "auto",
            "gradient_accumulation_steps": "auto",
            "zero_allow_untested_optimizer": True,
            **batch,
        }
    }

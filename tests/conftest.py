"""Tiny float64 models and data sets, all of them seeded."""

import gc
import os
import runpy
import sys

import datasets
import pytest
import torch
from hypothesis import settings
from launching import RECIPES
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ewc_hf import Consolidation
from ewc_hf.engines import chunks

VOCAB, LENGTH = 40, 9

pytest.register_assert_rewrite("assertions", "stored_files")

settings.register_profile("reproducible", deadline=None, derandomize=True, database=None, max_examples=100)
settings.load_profile("reproducible")


def pytest_configure(config):
    """Keep DeepSpeed quiet, and give each of several workers (`-n 2`), and what it launches, one thread."""
    os.environ["DS_ACCELERATOR"] = "cpu"  # else it prints, where it is installed, that it looked for others
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(config, items):
    """Begin with what takes minutes, so that of several workers none is left alone with it at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="module", autouse=True)
def few_objects():
    """Let the garbage collector, which each `Trainer` runs several times, pass over what was imported up to here."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def run_recipe(monkeypatch):
    """Runs a recipe in this process, which has imported everything."""

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(RECIPES / name), run_name="__main__")

    return run


def gpt2(tied=True):
    """Dropout is on, so that only eval mode gives the same gradients twice."""
    config = GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=VOCAB, n_positions=32, initializer_range=0.2,
        resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1, bos_token_id=0, eos_token_id=0, tie_word_embeddings=tied,
    )  # fmt: skip
    torch.manual_seed(0)
    return GPT2LMHeadModel(config).double()


def llama():
    """Its norms compute in float32 even here, which limits what can be asked of a comparison."""
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=VOCAB, max_position_embeddings=32, initializer_range=0.2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).double()


@pytest.fixture
def model():
    return gpt2()


@pytest.fixture
def packed():
    """Four examples of the same length, nothing else."""
    return [{"input_ids": _ids(seed, LENGTH)} for seed in range(4)]


@pytest.fixture
def padded():
    """Padded to one length by the tokenizer: real lengths 9, 5, 7 and 2."""
    return [_padded(seed, length) for seed, length in enumerate((9, 5, 7, 2))]


@pytest.fixture
def prompted():
    """Labels of the answer only; the last example has no label at all."""
    examples = []
    for seed, prompt in enumerate((3, 5, 1, LENGTH)):
        ids = _ids(seed, LENGTH)
        examples.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return examples


@pytest.fixture
def ragged():
    """Each of another length, without a mask: the default collator pads them."""
    return [{"input_ids": _ids(seed, length)} for seed, length in enumerate((4, 9, 2, 6, 5))]


@pytest.fixture
def dataset(request):
    """One of the data sets above, by name: `parametrize("dataset", [...], indirect=True)`."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def datasets_cache(tmp_path, monkeypatch):
    """What `datasets` reads and maps is kept for one test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def small_chunks(monkeypatch):
    """How many numbers a chunk has: small tensors are larger than one, and the last chunk is a short one."""
    monkeypatch.setattr(chunks, "_CHUNK", 4)
    return chunks._CHUNK


@pytest.fixture
def checkpoint(tmp_path, model):
    """A folder that holds the model."""
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def small():
    """A consolidation of three small tensors, which no checkpoint holds."""
    return make_consolidation({"a": (3, 4), "b": (5,), "c": (2, 2)}, seed=0)


def make_consolidation(shapes, seed, **described):
    draws = torch.Generator().manual_seed(seed)
    return Consolidation.create(
        importance={name: torch.rand(shape, generator=draws) for name, shape in shapes.items()},
        anchor={name: torch.randn(shape, generator=draws) for name, shape in shapes.items()},
        **{"method": "fisher", "unit": "nats per token", "num_examples": 3, "num_tokens": 24, **described},
    )


def consolidation_of(model):
    """Importance that is easy to tell apart, and the model's weights as they are."""
    return Consolidation.create(
        importance={
            name: torch.full(p.shape, 0.5 + index) for index, (name, p) in enumerate(model.named_parameters())
        },
        anchor={name: p.detach().clone() for name, p in model.named_parameters()},
        method="fisher",
        unit="nats per token",
        num_examples=1,
        num_tokens=8,
    )


def _ids(seed, length):
    return torch.randint(1, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def _padded(seed, length):
    padding = LENGTH - length
    return {"input_ids": _ids(seed, length) + [0] * padding, "attention_mask": [1] * length + [0] * padding}

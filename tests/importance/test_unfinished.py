"""An interrupted estimate goes on to the same bits, and no other file is taken for an unfinished one."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import MLP, ConvNet, causal_model, perturbed
from conftest import gpt2
from interrupted_estimates import TOKENS, Collator, Interrupt, estimate, interrupted
from safetensors import safe_open
from safetensors.torch import save_file
from strange_models import Strange

from ewc_hf.importance import unfinished

IMAGES = [{"images": np.sin(np.arange(144.0) * (n + 1)).reshape(1, 12, 12), "label": n % 5} for n in range(11)]

MODELS = {
    "batched": (gpt2, TOKENS),
    "by example": (partial(causal_model, "Mixtral"), TOKENS),
    "late": (lambda: perturbed(Strange("late")), [*TOKENS[:8], {"input_ids": [2, 4, 8]}, *TOKENS[8:]]),
    "module": (lambda: perturbed(ConvNet()), IMAGES),
    "channels last": (lambda: perturbed(ConvNet()).to(memory_format=torch.channels_last), IMAGES),
}
"""Two of one path, one that leaves it between two interruptions, one of both paths, one whose sums have strides."""
OPTIONS = {
    "fisher": {},
    "sampled": {"labels": "sampled"},
    "mas": {"method": "mas"},
    "signal": {"method": "signal"},
}
CASES = [
    pytest.param(*MODELS[model], OPTIONS[options], id=f"{model}-{options}")
    for model, options in [
        *(("batched", options) for options in OPTIONS),
        *(("by example", options) for options in ("fisher", "sampled", "mas")),
        *((model, "fisher") for model in ("late", "module", "channels last")),
        ("channels last", "signal"),
    ]
]


@pytest.fixture(autouse=True)
def _always_saves(monkeypatch):
    monkeypatch.setattr(unfinished, "_SECONDS_BETWEEN_SAVES", 0)
    monkeypatch.setattr(unfinished, "_SHARE_OF_TIME", 1e9)


@pytest.fixture
def added(monkeypatch):
    """How many examples each batch has that is added to the sums, and not only collated again."""
    sizes, advance = [], unfinished.UnfinishedEstimate.advance

    def count(self, batch, num_tokens):
        sizes.append(len(batch))
        advance(self, batch, num_tokens)

    monkeypatch.setattr(unfinished.UnfinishedEstimate, "advance", count)
    return sizes


@pytest.mark.parametrize(("build", "examples", "options"), CASES)
def test_goes_on_to_the_same_bits(build, examples, options, tmp_path, added):
    """Interrupted twice."""
    path, model = tmp_path / "runs" / "unfinished", build()
    whole = estimate(build(), examples, Collator(model), **options)
    interrupted(model, examples, path, after=3, **options)
    interrupted(model, examples, path, after=5, **options)
    added.clear()
    resumed = estimate(model, examples, Collator(model), resume_file=path, **options)
    assert sum(added) == len(examples) - 10
    assert resumed.importance.keys() == whole.importance.keys()
    for name, omega in whole.importance.items():
        assert torch.equal(resumed.importance[name], omega), name
    assert resumed.metadata == whole.metadata
    assert list(path.parent.iterdir()) == []


KILLED = """
import os, signal, sys
import test_unfinished as t
t.unfinished._SECONDS_BETWEEN_SAVES, t.unfinished._SHARE_OF_TIME = 0, 1e9
model = t.gpt2()
class Killer(t.Collator):
    def __call__(self, examples):
        if len(self.given) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(examples)
t.estimate(model, t.TEXTS, Killer(model), resume_file=sys.argv[1])
"""
TEXTS = [{**example, "messages": [{"role": "user", "content": str(n)}]} for n, example in enumerate(TOKENS)]
"""With a column of another kind, whose place in memory is another in each process."""


def test_goes_on_after_a_process_was_killed(tmp_path, added):
    path, here = tmp_path / "unfinished", Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *filter(None, sys.path)])}
    command = [sys.executable, "-c", KILLED, str(path)]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert os.listdir(tmp_path) == ["unfinished"]
    model = gpt2()
    resumed = estimate(model, TEXTS, Collator(model), resume_file=path).importance
    assert sum(added) == len(TEXTS) - 6
    assert all(torch.equal(resumed[name], omega) for name, omega in estimate(model, TEXTS).importance.items())


def truncate(path):
    path.write_bytes(path.read_bytes()[:-8])


def empty(path):
    path.write_bytes(b"")


def another_safetensors_file(path):
    save_file({"a": torch.zeros(2)}, path, metadata={"format": "pt"})


def bare_safetensors_file(path):
    save_file({"a": torch.zeros(2)}, path)


def folder(path):
    path.unlink()
    path.mkdir()


SPOILERS = {
    truncate: "expected a safetensors file, got '.*unfinished', unreadable",
    empty: "expected a safetensors file, got '.*unfinished', unreadable",
    another_safetensors_file: "expected an unfinished estimate in '.*unfinished', got a safetensors file of something",
    bare_safetensors_file: "expected an unfinished estimate in '.*unfinished', got a safetensors file of something",
    folder: "expected a file for the unfinished estimate, got the folder '.*unfinished'",
}


@pytest.mark.parametrize("spoil", SPOILERS)
def test_another_file_is_refused(spoil, tmp_path):
    path, model = tmp_path / "unfinished", perturbed(MLP())
    examples = [{"images": image["images"].flatten()[:12], "label": image["label"]} for image in IMAGES]
    interrupted(model, examples, path)
    spoil(path)
    with pytest.raises(ValueError, match=SPOILERS[spoil]):
        estimate(model, examples, resume_file=path)
    assert os.listdir(tmp_path) == ["unfinished"]


def test_nothing_is_written_without_a_file_nor_before_its_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Interrupt):
        estimate(gpt2(), TOKENS, Collator(gpt2(), 3))
    monkeypatch.setattr(unfinished, "_SECONDS_BETWEEN_SAVES", 3600)
    interrupted(gpt2(), TOKENS, tmp_path / "unfinished")
    assert os.listdir(tmp_path) == []


def test_a_failed_save_leaves_the_earlier_one(tmp_path, monkeypatch):
    path, model = tmp_path / "unfinished", gpt2()
    interrupted(model, TOKENS, path)
    before = path.read_bytes()

    def fill_the_disk(tensors, name, metadata):
        Path(name).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(unfinished, "save_file", fill_the_disk)
    with pytest.raises(OSError, match="no space left"):
        estimate(model, TOKENS, resume_file=path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["unfinished"]


def test_the_file_tells_how_far_it_is(tmp_path):
    interrupted(gpt2(), TOKENS, tmp_path / "unfinished")
    with safe_open(tmp_path / "unfinished", framework="pt") as file:
        content = {key: json.loads(value) for key, value in file.metadata().items()}
    tokens = sum(len(example["input_ids"]) - 1 for example in TOKENS[:6])
    assert (content["progress"]["num_examples"], content["progress"]["num_tokens"]) == (6, tokens)
    assert content["identity"]["method"] == "fisher"

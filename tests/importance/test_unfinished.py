"""An interrupted estimate goes on to the same bits, and an unfinished file is never taken for another's."""

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
from safetensors import safe_open
from safetensors.torch import save_file
from strange_models import Strange

from ewc_hf import estimate_importance
from ewc_hf.data import pad_examples
from ewc_hf.importance import unfinished

TOKENS = [{"input_ids": [(7 * n + 3 * t) % 38 + 2 for t in range(5 + n % 3)]} for n in range(11)]
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


class Interrupt(Exception):
    pass


class Collator:
    """The default one; counts the examples that it was given and fails at a batch."""

    def __init__(self, model, fails_at=None):
        self.model, self.fails_at, self.given = model, fails_at, []

    def __call__(self, examples):
        self.fails_at = None if self.fails_at is None else self.fails_at - 1
        if self.fails_at == -1:
            raise Interrupt
        self.given.append(len(examples))
        return pad_examples(examples, self.model)


def estimate(model, examples, collator=None, **options):
    options = {"progress": False, "batch_size": 2, **options}
    return estimate_importance(model, iter(examples), data_collator=collator, **options)


def interrupted(model, examples, path, after=3, **options):
    with pytest.raises(Interrupt):
        estimate(model, examples, Collator(model, after), resume_file=path, **options)


@pytest.fixture(autouse=True)
def _always_saves(monkeypatch):
    monkeypatch.setattr(unfinished, "_SECONDS_BETWEEN_SAVES", 0)
    monkeypatch.setattr(unfinished, "_SHARE_OF_TIME", 1e9)


@pytest.mark.parametrize(("build", "examples", "options"), CASES)
def test_goes_on_to_the_same_bits(build, examples, options, tmp_path):
    """Interrupted twice."""
    path, model = tmp_path / "runs" / "unfinished", build()
    whole = estimate(build(), examples, Collator(model), **options)
    interrupted(model, examples, path, after=3, **options)
    interrupted(model, examples, path, after=2, **options)
    collator = Collator(model)
    resumed = estimate(model, examples, collator, resume_file=path, **options)
    assert sum(collator.given) == len(examples) - 10
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


def test_goes_on_after_a_process_was_killed(tmp_path):
    path, here = tmp_path / "unfinished", Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *filter(None, sys.path)])}
    command = [sys.executable, "-c", KILLED, str(path)]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert os.listdir(tmp_path) == ["unfinished"]
    model = gpt2()
    collator = Collator(model)
    resumed = estimate(model, TEXTS, collator, resume_file=path).importance
    assert sum(collator.given) == len(TEXTS) - 6
    assert all(torch.equal(resumed[name], omega) for name, omega in estimate(model, TEXTS).importance.items())


OTHERS = {
    "model": ({"model": lambda: gpt2(tied=False)}, "another model;"),
    "weights": ({"model": lambda: perturbed(gpt2())}, "another model;"),
    "examples": ({"examples": TOKENS[::-1]}, "another examples;"),
    "fewer examples": ({"num_examples": 10}, "another examples;"),
    "seed": ({"seed": 1}, "another seed;"),
    "batch size": ({"batch_size": 3}, "another batch_size;"),
    "labels": ({"labels": "sampled"}, "another labels;"),
    "method": ({"method": "mas"}, "another method, output, unit;"),
    "signal": ({"method": "signal"}, "another method, unit;"),
    "several": ({"seed": 1, "batch_size": 3}, "another batch_size, seed;"),
}


@pytest.mark.parametrize(("other", "message"), [pytest.param(*case, id=name) for name, case in OTHERS.items()])
def test_the_file_of_another_estimate_is_refused(other, message, tmp_path):
    path = tmp_path / "unfinished"
    interrupted(gpt2(), TOKENS, path)
    before = path.read_bytes()
    options = {"model": gpt2, "examples": TOKENS, **other}
    with pytest.raises(ValueError, match=message):
        estimate(options.pop("model")(), options.pop("examples"), resume_file=path, **options)
    assert path.read_bytes() == before


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
    assert content["progress"] == {"num_examples": 6, "num_tokens": tokens}
    assert content["identity"]["method"] == "fisher"

"""An unfinished file is never taken for another estimate's."""

import re
from dataclasses import dataclass

import pytest
import torch
import transformers
from architectures import perturbed
from conftest import gpt2
from interrupted_estimates import TOKENS, Interrupt, estimate, interrupt, interrupted

from ewc_hf import version
from ewc_hf.importance import unfinished


@pytest.fixture(autouse=True)
def _always_saves(monkeypatch):
    monkeypatch.setattr(unfinished, "_SECONDS_BETWEEN_SAVES", 0)
    monkeypatch.setattr(unfinished, "_SHARE_OF_TIME", 1e9)


OTHERS = {
    "model": ({"model": lambda: gpt2(tied=False)}, "another model;"),
    "weights": ({"model": lambda: perturbed(gpt2())}, "another model;"),
    "examples": ({"examples": TOKENS[::-1]}, "another examples;"),
    "fewer examples": ({"num_examples": 10}, "another examples;"),
    "seed": ({"seed": 1}, r"another seed \(1, there 0\);"),
    "batch size": ({"batch_size": 3}, r"another batch_size \(3, there 2\);"),
    "labels": ({"labels": "sampled"}, r"another labels \(sampled, there ground_truth\);"),
    "method": ({"method": "mas"}, r"another method \(mas, there fisher\), output \(.*\), unit \(.*\);"),
    "signal": ({"method": "signal"}, r"another method \(signal, there fisher\), unit \(.*\);"),
    "several": ({"seed": 1, "batch_size": 3}, r"another batch_size \(3, there 2\), seed \(1, there 0\);"),
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


@dataclass
class FirstTokens:
    """A collator whose batches depend on a number that is not in its name."""

    number: int

    def __call__(self, examples):
        ids = torch.tensor([example["input_ids"][: self.number] for example in examples])
        return {"input_ids": ids, "labels": ids}


def without_first_labels(examples):
    batch = FirstTokens(5)(examples)
    return {**batch, "labels": batch["labels"].index_fill(1, torch.arange(2), -100)}


COLLATORS = {"another setting": FirstTokens(4), "other labels": without_first_labels, "the default": None}


@pytest.mark.parametrize("other", COLLATORS.values(), ids=COLLATORS)
def test_another_collator_is_refused(other, tmp_path, monkeypatch):
    path, model, collator = tmp_path / "unfinished", gpt2(), FirstTokens(5)
    whole = estimate(model, TOKENS, collator).importance
    with monkeypatch.context() as patch, pytest.raises(Interrupt):
        patch.setattr(unfinished.UnfinishedEstimate, "remove", interrupt)
        estimate(model, TOKENS, collator, resume_file=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"in '.*unfinished', got others of the same 11 examples; use the same coll"):
        estimate(model, TOKENS, other, resume_file=path)
    assert path.read_bytes() == before
    resumed = estimate(model, TOKENS, lambda examples: FirstTokens(5)(examples), resume_file=path).importance
    assert all(torch.equal(resumed[name], omega) for name, omega in whole.items())


PACKAGES = {"ewc_hf": version, "torch": torch, "transformers": transformers}


@pytest.mark.parametrize("package", PACKAGES)
def test_another_version_is_refused(package, tmp_path, monkeypatch):
    path, model = tmp_path / "unfinished", gpt2()
    interrupted(model, TOKENS, path)
    before, installed = path.read_bytes(), re.escape(PACKAGES[package].__version__)
    monkeypatch.setattr(PACKAGES[package], "__version__", "9.9.9")
    with pytest.raises(ValueError, match=rf"another {package} version \(9\.9\.9, there {installed}\);"):
        estimate(model, TOKENS, resume_file=path)
    assert path.read_bytes() == before

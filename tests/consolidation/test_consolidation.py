"""What is stored beside a checkpoint: written, read again, and checked."""

import math
import pickle

import pytest
import torch
from conftest import consolidation_of, make_consolidation
from stored_files import ANCHOR_INDEX, INDEX, ONE_ANCHOR, ONE_SHARD, assert_equal, contents, ewc_files
from transformers import AutoModelForCausalLM

from ewc_hf import Consolidation
from ewc_hf.storage import shards
from ewc_hf.storage.tensor_file import write_tensor_file

SIZES = {"one shard": "5GB", "many shards": 48}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_saved_loaded_and_saved_again_is_the_same_bytes(tmp_path, small, size):
    small.save_pretrained(tmp_path / "first", max_shard_size=size)
    loaded = Consolidation.from_pretrained(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "second", max_shard_size=size)
    assert_equal(loaded, small)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    assert (ewc_files(tmp_path / "first") == ONE_SHARD | ONE_ANCHOR) is (size == "5GB")
    assert {INDEX, ANCHOR_INDEX} <= ewc_files(tmp_path / "first")


def test_saved_loaded_and_saved_again_beside_a_model_is_the_same_bytes(checkpoint, model):
    consolidation_of(model).save_pretrained(checkpoint, max_shard_size="4KB")
    before = contents(checkpoint)
    Consolidation.from_pretrained(checkpoint).save_pretrained(checkpoint, max_shard_size="4KB")
    assert contents(checkpoint) == before


def test_metadata_survives(tmp_path, small):
    small.save_pretrained(tmp_path)
    got = Consolidation.from_pretrained(str(tmp_path)).metadata
    assert got == {**small.metadata, "anchor": {**small.metadata["anchor"], "source": str(tmp_path)}}
    assert got["versions"].keys() == {"ewc_hf", "torch", "transformers"}


def test_the_folder_still_loads_as_a_model(checkpoint, model):
    consolidation_of(model).save_pretrained(checkpoint, max_shard_size="4KB")
    assert len(ewc_files(checkpoint)) > 3
    loaded = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float64)
    assert all(torch.equal(p, model.get_parameter(name)) for name, p in loaded.named_parameters())


def test_stale_shards_are_removed(tmp_path, small):
    small.save_pretrained(tmp_path, max_shard_size=48)
    small.save_pretrained(tmp_path)
    assert ewc_files(tmp_path) == ONE_SHARD | ONE_ANCHOR
    assert_equal(Consolidation.from_pretrained(tmp_path), small)


@pytest.mark.parametrize("failing", [1, 2, 4])
def test_an_error_while_saving_leaves_the_earlier_one(tmp_path, small, monkeypatch, failing):
    small.save_pretrained(tmp_path, max_shard_size=48)
    before, calls = contents(tmp_path), []

    def write_or_fail(*args, **kwargs):
        calls.append(args)
        if len(calls) == failing:
            raise OSError("disk full")
        return write_tensor_file(*args, **kwargs)

    monkeypatch.setattr(shards, "write_tensor_file", write_or_fail)
    other = make_consolidation({"a": (3, 4), "b": (5,), "c": (2, 2)}, seed=1)
    with pytest.raises(OSError, match="disk full"):
        other.save_pretrained(tmp_path, max_shard_size=48)
    assert len(calls) == failing
    assert contents(tmp_path) == before
    assert_equal(Consolidation.from_pretrained(tmp_path), small)


def test_no_pickle_is_ever_opened(tmp_path, small, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a pickle was read")

    for module, function in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, function, refuse)
    for name in ("pytorch_model.bin", "ewc_importance.bin", "ewc_anchor.pt"):
        (tmp_path / name).write_bytes(b"\x80\x04.")
    small.save_pretrained(tmp_path)
    assert_equal(Consolidation.from_pretrained(tmp_path), small)


WRONG_NUMBERS = {
    "NaN importance": ("importance", math.nan, "got NaN or Inf in the importance of 'b'"),
    "infinite importance": ("importance", math.inf, "got NaN or Inf in the importance of 'b'"),
    "negative importance": ("importance", -0.5, r"importance >= 0, got -0\.5 in 'b'"),
    "NaN anchor": ("anchor", math.nan, "got NaN or Inf in the anchor of 'b'"),
    "infinite anchor": ("anchor", -math.inf, "got NaN or Inf in the anchor of 'b'"),
}


@pytest.mark.parametrize(("kind", "number", "message"), WRONG_NUMBERS.values(), ids=WRONG_NUMBERS)
def test_wrong_numbers_are_refused_when_made_and_when_loaded(tmp_path, small, kind, number, message):
    tensors = {"importance": small.importance, "anchor": small.anchor}
    tensors[kind]["b"][2] = number
    with pytest.raises(ValueError, match=message):
        Consolidation(**tensors, metadata={})
    small.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        Consolidation.from_pretrained(tmp_path)


def test_importance_and_anchor_must_fit_each_other(small):
    with pytest.raises(ValueError, match=r"same parameters in importance and anchor, got 1 in only one of them.*'b'"):
        Consolidation(small.importance, {name: small.anchor[name] for name in ("a", "c")}, {})
    with pytest.raises(ValueError, match=r"same shape of 'b' in importance and anchor, got \(5,\) and \(4,\)"):
        Consolidation(small.importance, {**small.anchor, "b": torch.ones(4)}, {})

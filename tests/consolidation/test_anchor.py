"""Where the anchor is: in the checkpoint, beside it, or elsewhere."""

import json
import shutil

import pytest
import torch
from conftest import consolidation_of, gpt2
from safetensors.torch import load_file, save_file
from stored_files import ANCHOR_INDEX, ONE_ANCHOR, ONE_SHARD, assert_equal, ewc_files
from transformers import AutoModelForCausalLM

from ewc_hf import Consolidation


def change_weights(checkpoint, change):
    """Write the checkpoint's own file again, with other weights."""
    weights = load_file(checkpoint / "model.safetensors")
    change(weights)
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})


def test_an_anchor_that_the_folders_checkpoint_holds_is_not_stored(checkpoint, model):
    saved = consolidation_of(model)
    saved.save_pretrained(checkpoint)
    assert ewc_files(checkpoint) == ONE_SHARD
    got = Consolidation.from_pretrained(checkpoint)
    assert_equal(got, saved)
    assert got.metadata["anchor"]["source"] == str(checkpoint)


def test_a_checkpoint_in_shards_holds_the_anchor_too(tmp_path, model):
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    consolidation_of(model).save_pretrained(tmp_path)
    assert ewc_files(tmp_path) == ONE_SHARD
    assert_equal(Consolidation.from_pretrained(tmp_path), consolidation_of(model))


def test_the_folder_may_move_with_its_checkpoint(checkpoint, model, tmp_path):
    consolidation_of(model).save_pretrained(checkpoint)
    moved = checkpoint.rename(tmp_path / "moved")
    assert_equal(Consolidation.from_pretrained(moved), consolidation_of(model))


def test_an_anchor_that_the_folders_checkpoint_does_not_hold_is_stored(checkpoint, model):
    model.transformer.ln_f.bias.data += 1
    saved = consolidation_of(model)
    saved.save_pretrained(checkpoint)
    assert ewc_files(checkpoint) == ONE_SHARD | ONE_ANCHOR
    assert_equal(Consolidation.from_pretrained(checkpoint), saved)


def test_a_stored_anchor_goes_when_the_checkpoint_holds_the_next_one(checkpoint, model):
    other = gpt2()
    other.transformer.ln_f.bias.data += 1
    consolidation_of(other).save_pretrained(checkpoint, max_shard_size="4KB")
    assert ANCHOR_INDEX in ewc_files(checkpoint)
    consolidation_of(model).save_pretrained(checkpoint)
    assert ewc_files(checkpoint) == ONE_SHARD
    assert_equal(Consolidation.from_pretrained(checkpoint), consolidation_of(model))


def test_an_anchor_elsewhere_is_referred_to(checkpoint, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = consolidation_of(model)
    saved.save_pretrained("elsewhere", anchor_source="checkpoint")
    assert ewc_files(tmp_path / "elsewhere") == ONE_SHARD
    monkeypatch.chdir("/")
    got = Consolidation.from_pretrained(tmp_path / "elsewhere")
    assert_equal(got, saved)
    assert got.metadata["anchor"]["source"] == str(checkpoint)


def test_an_anchor_source_with_other_weights_is_refused(checkpoint, model, tmp_path):
    model.transformer.ln_f.bias.data += 1
    with pytest.raises(ValueError, match=r"holds the anchor, got '.*checkpoint' with other weights or names; leave"):
        consolidation_of(model).save_pretrained(tmp_path / "elsewhere", anchor_source=checkpoint)
    assert not (tmp_path / "elsewhere").exists()


def test_a_model_loaded_in_bfloat16_is_held_by_its_float32_checkpoint(tmp_path):
    gpt2().float().save_pretrained(tmp_path)
    half = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    consolidation_of(half).save_pretrained(tmp_path)
    assert ewc_files(tmp_path) == ONE_SHARD
    got = Consolidation.from_pretrained(tmp_path)
    assert all(torch.equal(got.anchor[name].bfloat16(), p) for name, p in half.named_parameters())


CHANGED = {
    "another value": lambda weights: weights["transformer.ln_f.bias"].add_(1e-6),
    "another name": lambda weights: weights.update(other=weights.pop("transformer.ln_f.bias")),
    "another dtype": lambda weights: weights.update({k: v.float() for k, v in weights.items()}),
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_a_checkpoint_that_changed_is_refused(checkpoint, model, tmp_path, change, elsewhere):
    folder = tmp_path / "elsewhere" if elsewhere else checkpoint
    consolidation_of(model).save_pretrained(folder, anchor_source=checkpoint if elsewhere else None)
    change_weights(checkpoint, change)
    with pytest.raises(ValueError, match=r"the anchor with fingerprint [0-9a-f]{64} in .*, got other weights; put"):
        Consolidation.from_pretrained(folder)


def test_a_checkpoint_that_is_gone_is_refused(checkpoint, model, tmp_path):
    consolidation_of(model).save_pretrained(tmp_path / "elsewhere", anchor_source=checkpoint)
    shutil.rmtree(checkpoint)
    with pytest.raises(ValueError, match=r"that holds the anchor in '.*checkpoint', got no such folder; put"):
        Consolidation.from_pretrained(tmp_path / "elsewhere")


def test_the_folder_may_move_with_the_checkpoint_beside_it(checkpoint, model, tmp_path):
    saved, inner = consolidation_of(model), tmp_path / "both"
    inner.mkdir()
    checkpoint = checkpoint.rename(inner / "checkpoint")
    saved.save_pretrained(inner / "deep" / "ewc", anchor_source=checkpoint)
    recorded = json.loads((inner / "deep" / "ewc" / "ewc_config.json").read_text())["anchor"]
    assert recorded["source"] == "../../checkpoint", "no path of this machine"
    inner.rename(tmp_path / "moved")
    assert_equal(Consolidation.from_pretrained(tmp_path / "moved" / "deep" / "ewc"), saved)
    assert_equal(Consolidation.from_pretrained(tmp_path / "moved", subfolder="deep/ewc"), saved)

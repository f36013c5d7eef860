"""What is stored beside a checkpoint: written, read again, merged, and refused where it is damaged."""

import json
import math
import pickle
import shutil

import pytest
import torch
from conftest import consolidation_of, gpt2, make_consolidation
from ewc_hf.tensor_file import write_tensor_file
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ewc_hf import Consolidation, l2_to_start, shards

CONFIG = "ewc_config.json"
INDEX, ANCHOR_INDEX = "ewc_importance.safetensors.index.json", "ewc_anchor.safetensors.index.json"
ONE_SHARD = {CONFIG, INDEX, "ewc_importance.safetensors"}
ONE_ANCHOR = {ANCHOR_INDEX, "ewc_anchor.safetensors"}
SIZES = {"one shard": "5GB", "many shards": 48}


@pytest.fixture
def checkpoint(tmp_path, model):
    """A folder that holds the model."""
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def ewc_files(folder):
    return {path.name for path in folder.iterdir() if "ewc" in path.name}


def assert_equal(got, expected):
    for a, b in ((got.importance, expected.importance), (got.anchor, expected.anchor)):
        assert list(a) == list(b)
        assert all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in b)


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(checkpoint, change):
    """Write the checkpoint's own file again, with other weights."""
    weights = load_file(checkpoint / "model.safetensors")
    change(weights)
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})


# Writing and reading


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


# Where the anchor is


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


def test_a_checkpoint_that_is_gone_is_refused(checkpoint, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    consolidation_of(model).save_pretrained(tmp_path / "elsewhere", anchor_source=checkpoint)
    shutil.rmtree(checkpoint)
    with pytest.raises(ValueError, match=r"a folder or a Hub id that can be reached, got '.*checkpoint'"):
        Consolidation.from_pretrained(tmp_path / "elsewhere")


# Damage


def cut(path):
    path.write_bytes(path.read_bytes()[:-4])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def first(folder, stem="ewc_importance"):
    return min(folder.glob(f"{stem}-00001-of-*.safetensors"))


def lead(folder, where):
    index = json.loads((folder / INDEX).read_text())
    edit_json(folder / INDEX, weight_map=dict.fromkeys(index["weight_map"], where))


DAMAGES = {
    "missing config": (lambda f: (f / CONFIG).unlink(), "the file 'ewc_config.json' in .*, got no such file"),
    "malformed config": (lambda f: (f / CONFIG).write_text('{"format_version": 1,'), "expected JSON in .*ewc_config"),
    "no object": (lambda f: (f / CONFIG).write_text("[]"), "format version 2 in .*ewc_config.json', got another"),
    "format version": (lambda f: edit_json(f / CONFIG, format_version=1), "format version 2 in .*; install the"),
    "missing index": (lambda f: (f / INDEX).unlink(), f"the file '{INDEX}' in .*, got no such file"),
    "malformed index": (lambda f: (f / INDEX).write_text("{"), "expected JSON in .*ewc_importance"),
    "index without digests": (lambda f: edit_json(f / INDEX, metadata={}), "expected 'metadata.sha256' in "),
    "missing shard": (lambda f: first(f).unlink(), "the shard 'ewc_importance-00001-of.*', got no such file"),
    "truncated shard": (lambda f: cut(first(f)), "SHA-256 .* of '.*ewc_importance-00001.*truncated or changed"),
    "changed byte": (lambda f: flip(first(f)), "SHA-256 .* of '.*ewc_importance-00001.*truncated or changed"),
    "missing anchor": (lambda f: first(f, "ewc_anchor").unlink(), "the shard 'ewc_anchor-00001-of.*', got no such"),
    "changed anchor": (lambda f: flip(first(f, "ewc_anchor")), "SHA-256 .* of '.*ewc_anchor-00001"),
    "path above": (lambda f: lead(f, "../x"), r"file names in the folder of .*, got the path '\.\./x', which leads"),
    "path elsewhere": (lambda f: lead(f, "/etc/passwd"), "got the path '/etc/passwd', which leads elsewhere"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found(tmp_path, small, damage, message):
    small.save_pretrained(tmp_path, max_shard_size=48)
    Consolidation.from_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        Consolidation.from_pretrained(tmp_path)


def test_an_anchor_that_was_exchanged_whole_is_refused(tmp_path, small):
    """Shards and index fit each other, but not what the config recorded."""
    other = make_consolidation({"a": (3, 4), "b": (5,), "c": (2, 2)}, seed=1)
    for name, saved in (("here", small), ("there", other)):
        saved.save_pretrained(tmp_path / name)
    for name in ONE_ANCHOR:
        shutil.copy(tmp_path / "there" / name, tmp_path / "here" / name)
    with pytest.raises(ValueError, match=r"anchor with fingerprint .* in 'ewc_anchor'.*got other weights"):
        Consolidation.from_pretrained(tmp_path / "here")


def test_an_importance_that_was_exchanged_whole_is_refused(tmp_path, small):
    other = make_consolidation({"a": (3, 4), "b": (5,), "c": (2, 2)}, seed=1)
    for name, saved in (("here", small), ("there", other)):
        saved.save_pretrained(tmp_path / name)
    for name in ("ewc_importance.safetensors", INDEX):
        shutil.copy(tmp_path / "there" / name, tmp_path / "here" / name)
    with pytest.raises(ValueError, match="fingerprint"):
        Consolidation.from_pretrained(tmp_path / "here")


@pytest.mark.parametrize("anchor", [None, {"source": "ewc_anchor"}, {"source": None, "revision": None}], ids=str)
def test_a_config_that_does_not_say_where_the_anchor_is_is_refused(tmp_path, small, anchor):
    small.save_pretrained(tmp_path)
    edit_json(tmp_path / CONFIG, anchor=anchor)
    with pytest.raises(ValueError, match="anchor"):
        Consolidation.from_pretrained(tmp_path)


@pytest.mark.parametrize("source", ["no/such/folder/at/all", "someone/nothing-here", "not a name!"])
def test_a_source_that_is_nowhere_is_refused(source, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=f"expected a folder or a Hub id that can be reached, got '{source}'"):
        Consolidation.from_pretrained(source)


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


# Merging


@pytest.mark.parametrize("decay", [1.0, 0.25, 0.0])
def test_merging_adds_what_decays(small, decay):
    new = make_consolidation({"a": (3, 4), "b": (5,), "c": (2, 2)}, seed=1, num_examples=2, num_tokens=10)
    merged = small.merge(new, decay)
    for name, omega in new.importance.items():
        torch.testing.assert_close(merged.importance[name], decay * small.importance[name] + omega)
        assert torch.equal(merged.anchor[name], new.anchor[name])
    assert (merged.metadata["num_examples"], merged.metadata["num_tokens"]) == (5, 34)
    assert [(task["weight"], task["num_tokens"]) for task in merged.metadata["tasks"]] == [(decay, 24), (1.0, 10)]
    assert merged.metadata["anchor"] == new.metadata["anchor"]
    assert merged.metadata["importance_fingerprint"] != new.metadata["importance_fingerprint"] or decay == 0


def test_merging_twice_decays_the_oldest_task_twice(tmp_path, small):
    merged = small.merge(small, decay=0.5).merge(small, decay=0.5)
    assert [task["weight"] for task in merged.metadata["tasks"]] == [0.25, 0.5, 1.0]
    torch.testing.assert_close(merged.importance["a"], 1.75 * small.importance["a"])
    merged.save_pretrained(tmp_path)
    assert_equal(Consolidation.from_pretrained(tmp_path), merged)


def test_merging_leaves_both_as_they_were(small):
    new = make_consolidation({"a": (3, 4), "b": (5,), "c": (2, 2)}, seed=1)
    before = [{k: v.clone() for k, v in c.importance.items()} for c in (small, new)]
    metadata = json.dumps([small.metadata, new.metadata])
    small.merge(new, decay=0.5)
    for consolidation, old in zip((small, new), before, strict=True):
        assert all(torch.equal(consolidation.importance[name], omega) for name, omega in old.items())
    assert json.dumps([small.metadata, new.metadata]) == metadata


SHAPES = {"a": (3, 4), "b": (5,), "c": (2, 2)}
UNFIT = {
    "method": ({"method": "mas"}, 1.0, "importances of the same method, got 'fisher' and 'mas'; estimate both"),
    "unit": ({"unit": "furlongs"}, 1.0, "importances of the same unit, got 'nats per token' and 'furlongs'"),
    "names": ({"shapes": {"a": (3, 4), "b": (5,)}}, 1.0, "same parameters in older importance and newer .*'c'"),
    "shapes": ({"shapes": {**SHAPES, "b": (6,)}}, 1.0, r"same shape of 'b' in older .*, got \(5,\) and \(6,\)"),
    "decay above 1": ({}, 1.5, "expected 0 <= decay <= 1, got 1.5"),
    "decay below 0": ({}, -0.1, "expected 0 <= decay <= 1, got -0.1"),
    "decay NaN": ({}, math.nan, "expected 0 <= decay <= 1, got nan"),
}


@pytest.mark.parametrize(("options", "decay", "message"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_is_not_merged(small, options, decay, message):
    new = make_consolidation(**{"shapes": SHAPES, "seed": 1, **options})
    with pytest.raises(ValueError, match=message):
        small.merge(new, decay)

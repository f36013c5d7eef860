"""Shards, their index and its checks; checkpoints of transformers."""

import hashlib
import json
from contextlib import ExitStack

import pytest
import torch
from conftest import gpt2
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import load_file

from ewc_hf.storage import open_checkpoint, open_shards, remove_stale_shards, replaced, verify_shards, write_shards

STEM, INDEX = "omega", "omega.safetensors.index.json"
SIZES = {"one shard": "5GB", "many shards": 100}


@pytest.fixture
def tensors():
    """Of several dtypes, ordered neither by name nor by shard: the planner joins `z` and `a` past `large`."""
    draws = torch.Generator().manual_seed(0)
    return {
        "z": torch.randn(4, 3, generator=draws),
        "large": torch.randn(40, generator=draws),
        "a": torch.randn(5, generator=draws, dtype=torch.float64),
        "half": torch.randn(7, generator=draws).bfloat16(),
        "turned": torch.randn(3, 4, generator=draws).T,
    }


def write(folder, tensors, max_shard_size="5GB", stem=STEM):
    with ExitStack() as stack:
        write_shards(stack, folder, stem, tensors, max_shard_size)


def read_shards(folder, stem):
    verify_shards(folder, stem)
    return {name: tensor[...] for name, tensor in open_shards(folder, stem).items()}


def files(folder):
    return {path.name for path in folder.iterdir()}


def edit_index(folder, change, name=INDEX):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(change(content) or content))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_what_is_written_is_read_again(tmp_path, tensors, size):
    write(tmp_path, tensors, size)
    got = read_shards(tmp_path, STEM)
    assert list(got) == list(tensors)
    for name, tensor in tensors.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_shards_are_named_as_the_planner_of_huggingface_hub_names_them(tmp_path, tensors, size):
    write(tmp_path, tensors, size)
    plan = split_torch_state_dict_into_shards(
        tensors, filename_pattern="omega{suffix}.safetensors", max_shard_size=size
    )
    assert files(tmp_path) == {*plan.filename_to_tensors, INDEX}
    for filename, names in plan.filename_to_tensors.items():
        assert load_file(tmp_path / filename).keys() == set(names)


def test_one_shard_carries_no_number_and_has_an_index(tmp_path, tensors):
    write(tmp_path, tensors)
    assert files(tmp_path) == {"omega.safetensors", INDEX}


def test_the_index_holds_each_shards_sha256_and_the_size(tmp_path, tensors):
    write(tmp_path, tensors, 100)
    index = json.loads((tmp_path / INDEX).read_text())
    shards = files(tmp_path) - {INDEX}
    assert len(shards) > 2
    assert index["metadata"]["sha256"] == {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in shards
    }
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in tensors.values())
    assert list(index["weight_map"]) == list(tensors)


@pytest.mark.parametrize("last", ["one shard", "none"])
def test_stale_shards_are_removed(tmp_path, tensors, last):
    write(tmp_path, tensors, 100)
    write(tmp_path, {"other": torch.ones(2)}, stem="other")
    if last == "none":
        (tmp_path / INDEX).unlink()
        kept = set()
    else:
        write(tmp_path, tensors)
        kept = {"omega.safetensors", INDEX}
    remove_stale_shards(tmp_path, STEM)
    assert files(tmp_path) == {"other.safetensors", "other.safetensors.index.json"} | kept


def break_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "no index": (lambda folder: (folder / INDEX).unlink(), f"the file '{INDEX}' in .*, got no such file"),
    "missing shard": (lambda folder: first(folder).unlink(), "shard 'omega-00001-of-.*' named in .*, got no such"),
    "truncated shard": (
        lambda folder: first(folder).write_bytes(first(folder).read_bytes()[:-4]),
        "SHA-256 .* of '.*omega-00001-of-.*truncated or changed since it was saved",
    ),
    "changed byte": (lambda folder: break_byte(first(folder)), "SHA-256 .*truncated or changed"),
    "empty shard": (lambda folder: first(folder).write_bytes(b""), "SHA-256 .*truncated or changed"),
    "no digest": (
        lambda folder: edit_index(folder, lambda index: index["metadata"]["sha256"].clear()),
        "SHA-256 None of ",
    ),
    "malformed JSON": (lambda folder: (folder / INDEX).write_text('{"weight_map": {'), "expected JSON in .*omega"),
    "not text": (lambda folder: (folder / INDEX).write_bytes(b"\xff\xfe\x00"), "expected JSON in .*omega"),
    "no weight map": (lambda folder: (folder / INDEX).write_text('{"metadata": {}}'), "expected a 'weight_map'"),
    "no digests": (lambda folder: (folder / INDEX).write_text('{"weight_map": {}}'), "'metadata.sha256' in "),
    "a list": (lambda folder: (folder / INDEX).write_text("[1, 2]"), "expected a 'weight_map'"),
    "tensor elsewhere": (
        lambda folder: edit_index(folder, lambda index: index["weight_map"].update(ghost=first(folder).name)),
        "the tensor 'ghost' in '.*omega-00001-of-.*', got none",
    ),
}  # fmt: skip


def first(folder):
    return min(folder.glob("omega-00001-of-*.safetensors"))


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found(tmp_path, tensors, damage, message):
    write(tmp_path, tensors, 100)
    read_shards(tmp_path, STEM)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_shards(tmp_path, STEM)


@pytest.mark.parametrize("leads_to", ["../x.safetensors", "inner/x.safetensors", "{outside}", "..", "."])
def test_an_index_cannot_lead_outside_its_folder(tmp_path, tensors, leads_to):
    """The file it names is there and has the right digest, so only the check of the path can refuse it."""
    folder = tmp_path / "here"
    (folder / "inner").mkdir(parents=True)
    write(folder, {"x": tensors["z"]})
    content = (folder / "omega.safetensors").read_bytes()
    for copy in (tmp_path / "x.safetensors", folder / "inner" / "x.safetensors"):
        copy.write_bytes(content)
    leads_to = leads_to.format(outside=tmp_path / "x.safetensors")
    digest = hashlib.sha256(content).hexdigest()
    edit_index(folder, lambda index: {"metadata": {"sha256": {leads_to: digest}}, "weight_map": {"x": leads_to}})
    with pytest.raises(ValueError, match=r"which leads elsewhere|got no such file"):
        read_shards(folder, STEM)


def test_a_file_name_that_is_no_text_is_refused(tmp_path, tensors):
    write(tmp_path, tensors)
    edit_index(tmp_path, lambda index: index["weight_map"].update(z=5))
    with pytest.raises(ValueError, match="weight_map"):
        read_shards(tmp_path, STEM)


def test_an_error_leaves_what_was_there_and_no_temporary_file(tmp_path):
    path = tmp_path / "kept.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replaced(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert files(tmp_path) == {"kept.json"}
    assert path.read_text() == "old"
    with replaced(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert files(tmp_path) == {"kept.json"}
    assert path.read_text() == "new"


@pytest.mark.parametrize("size", ["5GB", "4KB"], ids=SIZES)
def test_a_checkpoint_of_transformers_is_read(tmp_path, size):
    model = gpt2()
    model.save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors").is_file() is (size == "5GB")
    got = open_checkpoint(tmp_path, [name for name, _ in model.named_parameters()])
    assert got is not None
    assert all(torch.equal(got[name][...], p) for name, p in model.named_parameters())


def test_a_checkpoint_that_is_absent_or_lacks_a_name_is_none(tmp_path):
    assert open_checkpoint(tmp_path, ["x"]) is None
    gpt2().save_pretrained(tmp_path)
    assert open_checkpoint(tmp_path, ["transformer.wte.weight", "x"]) is None


def test_a_damaged_checkpoint_is_refused(tmp_path):
    gpt2().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"expected a safetensors file, got '.*model.safetensors', unreadable"):
        open_checkpoint(tmp_path, ["transformer.wte.weight"])


@pytest.mark.parametrize("leads_to", ["../model.safetensors", "/model.safetensors"])
def test_a_checkpoints_index_cannot_lead_outside_its_folder(tmp_path, leads_to):
    folder = tmp_path / "here"
    folder.mkdir()
    gpt2().save_pretrained(tmp_path)
    index = {"weight_map": {"transformer.wte.weight": leads_to}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="which leads elsewhere; do not use this index"):
        open_checkpoint(folder, ["transformer.wte.weight"])


@pytest.mark.parametrize("content", ["{}", "[]"])
def test_a_checkpoints_malformed_index_is_refused(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match="weight_map"):
        open_checkpoint(tmp_path, ["x"])

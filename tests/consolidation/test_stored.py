"""A stored consolidation that is damaged, exchanged or nowhere is refused."""

import json
import shutil

import pytest
from conftest import make_consolidation
from stored_files import CONFIG, INDEX, ONE_ANCHOR, edit_json

from ewc_hf import Consolidation


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


def without_unit(path):
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "unit"}))


DAMAGES = {
    "missing config": (lambda f: (f / CONFIG).unlink(), "the file 'ewc_config.json' in .*, got no such file"),
    "malformed config": (lambda f: (f / CONFIG).write_text('{"format_version": 1,'), "expected JSON in .*ewc_config"),
    "no object": (lambda f: (f / CONFIG).write_text("[]"), "format version 2 in .*ewc_config.json', got another"),
    "format version": (lambda f: edit_json(f / CONFIG, format_version=1), "format version 2 in .*; install the"),
    "missing key": (lambda f: without_unit(f / CONFIG), r"expected the keys \['unit'\] in .*, got a file without"),
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

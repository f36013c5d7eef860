"""An anchor has one fingerprint, in memory and saved, whatever precision the checkpoint that holds it is stored in."""

import pytest
import torch
from conftest import consolidation_of, gpt2
from safetensors.torch import load_file, save_file
from stored_files import CONFIG, ONE_SHARD, contents, edit_json, ewc_files
from transformers import AutoModelForCausalLM

from ewc_hf import Consolidation

PRECISIONS = [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32), (torch.float32, torch.float32)]


def fingerprint_of(consolidation):
    return consolidation.metadata["anchor"]["fingerprint"]


@pytest.fixture(params=PRECISIONS, ids=lambda pair: f"{pair[0]} loaded as {pair[1]}".replace("torch.", ""))
def model(request, tmp_path):
    """Loaded in another precision than that in which the folder `checkpoint` holds it, and in the same."""
    stored, loaded = request.param
    gpt2().to(stored).save_pretrained(tmp_path / "checkpoint")
    return AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", dtype=loaded)


@pytest.mark.parametrize("folder", ["checkpoint", "elsewhere", "alone"])
def test_it_is_saved_loaded_and_saved_again_as_it_was(tmp_path, model, folder):
    """In the checkpoint's own folder, in another one that refers to it, and where the anchor is stored itself."""
    made = consolidation_of(model)
    source = tmp_path / "checkpoint" if folder == "elsewhere" else None
    made.save_pretrained(tmp_path / folder, anchor_source=source)
    assert (ewc_files(tmp_path / folder) == ONE_SHARD) is (folder != "alone")
    loaded = Consolidation.from_pretrained(tmp_path / folder)
    assert fingerprint_of(loaded) == fingerprint_of(made)
    before = contents(tmp_path / folder)
    loaded.save_pretrained(tmp_path / folder, anchor_source=source)
    assert contents(tmp_path / folder) == before
    loaded.save_pretrained(tmp_path / "again")
    assert fingerprint_of(Consolidation.from_pretrained(tmp_path / "again")) == fingerprint_of(made)


def test_another_anchor_gets_another_one(tmp_path, model):
    made = consolidation_of(model)
    made.save_pretrained(tmp_path / "checkpoint")
    loaded = Consolidation.from_pretrained(tmp_path / "checkpoint")
    for known in (made, loaded):
        moved = {name: weight + 1 for name, weight in known.anchor.items()}
        Consolidation(known.importance, moved, known.metadata).save_pretrained(tmp_path / "moved")
        assert fingerprint_of(Consolidation.from_pretrained(tmp_path / "moved")) != fingerprint_of(made)


def test_a_checkpoint_in_another_precision_is_still_read_byte_by_byte(tmp_path, model):
    consolidation_of(model).save_pretrained(tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / "model.safetensors"
    weights = load_file(path)
    weights["transformer.ln_f.bias"][0] += 2**-10
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"the anchor with fingerprint [0-9a-f]{64} in .*, got other weights; put"):
        Consolidation.from_pretrained(tmp_path / "checkpoint")


def test_what_earlier_versions_saved_is_read(tmp_path, model):
    """They recorded the fingerprint of what is stored, and no other."""
    consolidation_of(model).save_pretrained(tmp_path / "checkpoint")
    recorded = Consolidation.from_pretrained(tmp_path / "checkpoint").metadata["anchor"]
    stored = recorded.get("stored_fingerprint", recorded["fingerprint"])
    anchor = {"source": ".", "revision": None, "fingerprint": stored}
    edit_json(tmp_path / "checkpoint" / CONFIG, anchor=anchor)
    assert fingerprint_of(Consolidation.from_pretrained(tmp_path / "checkpoint")) == stored

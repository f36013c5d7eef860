"""Checkpoints of one architecture, whatever tool wrote them."""

import shutil
import weakref

import pytest
import torch
from old_and_tuned import save
from safetensors.torch import load_file, save_file
from stored_by_tools import WEIGHTS, configure, rewrite, save_lora, with_lm_head, without_prefix
from tiny import tiny_gpt2, tiny_tokenizer
from transformers import AutoModelForCausalLM

from ewc_hf.study import adapters, checkpoints
from ewc_hf.study.line import line_tensors
from ewc_hf.study.line_ends import open_ends

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT asks for it


@pytest.fixture
def base(tmp_path):
    return save(tiny_gpt2(), tmp_path / "base")


@pytest.fixture
def tuned(tmp_path):
    return save(tiny_gpt2(seed=1), tmp_path / "tuned")


def read(stored):
    return {name: tensor[...] for name, tensor in stored.items()}


def assert_line(ends, base, tuned):
    """Both ends are these models, by the tuned one's names."""
    for stored, model in ((read(ends.base), base), (read(ends.tuned), tuned)):
        assert stored.keys() == line_tensors(tuned).keys()
        state = model.state_dict()
        assert all(torch.equal(stored[name], state[name]) for name in stored)


def sharded(folder):
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder / "again", max_shard_size=3000)
    (folder / WEIGHTS).unlink()
    for path in (folder / "again").iterdir():
        shutil.move(path, folder / path.name)
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2


TOOLS = {  # how a checkpoint is stored, and whether it is read from its own files
    "one file": (lambda folder: None, True),
    "shards": (sharded, True),
    "tied weights stored twice": (lambda folder: rewrite(folder, with_lm_head), True),
    "names that loading converts": (lambda folder: rewrite(folder, without_prefix), False),
}


@pytest.mark.parametrize("end", ["base", "tuned"])
@pytest.mark.parametrize(("stored", "own"), TOOLS.values(), ids=TOOLS)
def test_a_checkpoint_is_found_whatever_tool_wrote_it(tmp_path, base, tuned, stored, own, end):
    stored(tmp_path / end)
    ends = open_ends(base, tuned, tmp_path / "scratch")
    assert_line(ends, tiny_gpt2(), tiny_gpt2(seed=1))
    assert {tensor.path.parent == tmp_path / end for tensor in getattr(ends, end).values()} == {own}
    assert (tmp_path / "scratch").exists() is not own, "nothing is copied that can be read where it lies"


def test_numbers_that_loading_converts_are_those_of_the_model(tmp_path, base, tuned, monkeypatch):
    """The names may be the model's and the numbers others, such as rows in another order."""
    load = checkpoints.load_model

    def turned(*where_and_how):
        model = load(*where_and_how)
        model.transformer.wpe.weight.data = model.transformer.wpe.weight.data.flip(0)
        return model

    monkeypatch.setattr(checkpoints, "load_model", turned)
    ends = open_ends(base, tuned, tmp_path / "scratch")
    expected = tiny_gpt2(seed=1).transformer.wpe.weight.flip(0)
    assert torch.equal(ends.tuned["transformer.wpe.weight"][...], expected)


def test_a_tuned_model_whose_weights_are_tied_no_more(tmp_path, base):
    untied = tiny_gpt2(seed=1)
    untied.config.tie_word_embeddings = False
    untied.lm_head.weight = torch.nn.Parameter(untied.lm_head.weight.detach() + 1)
    ends = open_ends(base, save(untied, tmp_path / "untied"), tmp_path / "scratch")
    assert torch.equal(ends.base["lm_head.weight"][...], ends.base["transformer.wte.weight"][...])
    assert_line(ends, tiny_gpt2(), untied)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_a_checkpoint_keeps_its_dtype(tmp_path, base, dtype):
    tuned = save(tiny_gpt2(seed=1, dtype=dtype), tmp_path / "other")
    rewrite(tuned, without_prefix)
    ends = open_ends(base, tuned, tmp_path / "scratch")
    assert {tensor.dtype for tensor in ends.tuned.values()} == {dtype}
    assert_line(ends, tiny_gpt2(), tiny_gpt2(seed=1, dtype=dtype))


def test_an_adapter_is_merged_into_its_base(tmp_path, base):
    merged = save_lora(base, tmp_path / "lora")
    ends = open_ends(base, tmp_path / "lora", tmp_path / "scratch")
    assert_line(ends, tiny_gpt2(), merged)
    assert ends.tokenizer == base
    different = [name for name in ends.base if not torch.equal(ends.base[name][...], ends.tuned[name][...])]
    assert different == ["transformer.h.0.attn.c_attn.weight", "transformer.h.1.attn.c_attn.weight"]


def test_a_tokenizer_beside_the_tuned_model_comes_first(tmp_path, base, tuned):
    save_lora(base, tmp_path / "lora")
    tiny_tokenizer().save_pretrained(tmp_path / "lora")
    assert open_ends(base, tmp_path / "lora", tmp_path / "scratch").tokenizer == tmp_path / "lora"
    (tuned / "generation_config.json").unlink()
    ends = open_ends(base, tuned, tmp_path / "scratch")
    assert (ends.tokenizer, ends.generation) == (tuned, base)


def test_a_model_of_the_hub_is_downloaded(tmp_path, base, tuned, monkeypatch):
    asked = []

    def download(name, revision, allow_patterns, token):
        asked.append((name, allow_patterns))
        return str(base)

    monkeypatch.setattr("ewc_hf.storage.hub.snapshot_download", download)
    assert_line(open_ends("someone/old", tuned, tmp_path / "scratch"), tiny_gpt2(), tiny_gpt2(seed=1))
    ((name, patterns),) = asked
    assert name == "someone/old"
    assert {"*.json", "model*.safetensors", "adapter_model.safetensors"} < set(patterns)


def test_one_model_is_in_memory_at_a_time(tmp_path, base, monkeypatch):
    load, models = checkpoints.load_model, []

    def loaded(*where_and_how):
        assert [model() for model in models] == [None] * len(models)
        model = load(*where_and_how)
        models.append(weakref.ref(model))
        return model

    save_lora(base, tmp_path / "lora")
    for module in (checkpoints, adapters):
        monkeypatch.setattr(module, "load_model", loaded)
    open_ends(base, tmp_path / "lora", tmp_path / "scratch")
    assert len(models) == 3


def test_another_configuration_is_told(tmp_path, base, tuned, monkeypatch):
    told = []
    monkeypatch.setattr("ewc_hf.study.line_ends.logger.warning", told.append)
    configure(tuned, use_cache=False, transformers_version="0", pad_token_id=3)
    open_ends(base, tuned, tmp_path / "scratch")
    assert told == []
    configure(tuned, layer_norm_epsilon=1e-3)
    open_ends(base, tuned, tmp_path / "scratch")
    assert told == [
        "The line has the tuned model's configuration, which differs from the base's in ['layer_norm_epsilon']"
    ]


@pytest.mark.filterwarnings("ignore:.*tie")  # PEFT tells it
def test_an_adapter_may_untie_weights(tmp_path, base):
    save_lora(base, tmp_path / "lora", modules_to_save=["lm_head"])
    path = tmp_path / "lora" / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["base_model.model.lm_head.weight"] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    ends = open_ends(base, tmp_path / "lora", tmp_path / "scratch")
    wte, head = (ends.tuned[f"{name}.weight"][...] for name in ("transformer.wte", "lm_head"))
    assert torch.equal(head, wte + 1)
    assert torch.equal(ends.base["lm_head.weight"][...], wte)

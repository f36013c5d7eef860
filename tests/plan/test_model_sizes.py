"""Counts of parameters, against those that are published and those that are counted by hand."""

from pathlib import Path

import pytest
from planned_models import SIZES
from transformers import GPT2Config, MambaConfig, T5Config

from ewc_hf.plan import model_sizes, read_config

RECIPES = Path(__file__).parents[2] / "recipes" / "plan"


@pytest.mark.parametrize(
    ("folder", "total", "blocks", "embedding", "stored_in_bfloat16"),
    [
        ("gpt2", 124_439_808, 12, 0, False),
        ("llama_8b", 8_030_261_248, 32, 128_256 * 4096, True),
        ("llama_70b", 70_553_706_496, 80, 128_256 * 8192, True),
    ],
)
def test_parameters_are_counted_without_weights(folder, total, blocks, embedding, stored_in_bfloat16):
    sizes = model_sizes(read_config(str(RECIPES / folder)))
    assert (sizes.total, len(sizes.blocks), sizes.embedding) == (total, blocks, embedding)
    assert sizes.stored_in_bfloat16 == stored_in_bfloat16


def test_where_the_parameters_are():
    """Tied, the head is the embedding; untied, autocast copies all but the embedding."""
    tied, untied = SIZES["tied"], SIZES["untied"]
    positions, norm = 16 * 256, 2 * 256
    assert tied.rest == 1024 * 256 + positions + norm
    assert tied.cast == tied.total - positions
    assert untied.rest == 2048 * 256 + 256
    assert untied.cast == untied.total - 2048 * 256


def test_a_block_within_a_block_keeps_its_parameters():
    sizes = model_sizes(MambaConfig(vocab_size=50, hidden_size=8, num_hidden_layers=3))
    assert len(sizes.blocks) == 6
    assert sizes.rest == 50 * 8 + 8


@pytest.mark.parametrize("content", [None, "{}", "{", '{"model_type": "no_such_model"}'])
def test_a_folder_without_a_models_config_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(
        ValueError, match=f"expected a folder with a model's config.json or a Hub id, got '{tmp_path}'"
    ):
        read_config(str(tmp_path))


@pytest.mark.parametrize("config", [T5Config(), GPT2Config(n_embd=10, n_head=3)])
def test_other_models_are_refused(config):
    with pytest.raises(ValueError, match="expected the configuration of a causal language model, got a"):
        model_sizes(config)

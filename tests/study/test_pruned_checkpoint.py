"""A pruned checkpoint: its zeros, its card, and that nothing is half-written."""

import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from datasets import Dataset
from tiny import SENTENCES, save_tiny_checkpoint, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from ewc_hf import estimate_importance, evaluate_perplexity
from ewc_hf.__main__ import main
from ewc_hf.data import pack
from ewc_hf.engines import processes
from ewc_hf.importance import prunable_layers, prune_weights
from ewc_hf.study import prune_checkpoint, pruned_checkpoint


@pytest.fixture
def model(tmp_path):
    return save_tiny_checkpoint(tmp_path / "model")


def blocks():
    return pack(Dataset.from_dict({"text": SENTENCES * 4}), tiny_tokenizer(), 8)


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("criterion", ["magnitude", "signal", "fisher", "mas", "stored"])
def test_criteria(tmp_path, model, criterion):
    expected, importance = load(model), None
    if criterion != "magnitude":
        method = "fisher" if criterion == "stored" else criterion
        consolidation = estimate_importance(expected, blocks(), method, num_examples=5, seed=1, progress=False)
        importance = consolidation.importance
        consolidation.save_pretrained(tmp_path / "stored")
    prune_weights(expected, 0.4, importance)
    given = str(tmp_path / "stored") if criterion == "stored" else criterion
    examples = blocks() if criterion in ("signal", "fisher", "mas") else None
    result = prune_checkpoint(model, tmp_path / "new", 0.4, given, examples, SENTENCES[:3], num_examples=5, seed=1)
    pruned = load(tmp_path / "new")
    for name, p in expected.named_parameters():
        assert torch.equal(pruned.get_parameter(name), p), name
    zeros = [layer.weight == 0 for layer in prunable_layers(pruned).values()]
    assert sum(int(z.sum()) for z in zeros) == pytest.approx(0.4 * sum(z.numel() for z in zeros), abs=1)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new")
    for got, of in ((result.before, model), (result.after, tmp_path / "new")):
        assert got.nll == pytest.approx(evaluate_perplexity(load(of), tokenizer, SENTENCES[:3], progress=False).nll)
    state = json.loads((tmp_path / "new" / "pruning.json").read_text())
    assert state["sparsity"] == pytest.approx(0.4, abs=1e-3) and state["after"]["nll"] == result.after.nll
    assert (state["criterion"], state["num_examples"]) == (given, 5 if examples else None)


def test_as_many_examples_are_told_as_there_were(tmp_path, model):
    result = prune_checkpoint(model, tmp_path / "new", 0.4, "fisher", blocks(), num_examples=5000)
    assert result.num_examples == len(blocks())


def test_command_and_card(tmp_path, model, capsys):
    (tmp_path / "held_out.txt").write_text(SENTENCES[0])
    where = [
        "--model",
        str(model),
        "--output_dir",
        str(tmp_path / "new"),
        "--text_test",
        str(tmp_path / "held_out.txt"),
    ]
    main(["prune", *where, "--sparsity", "0.25", "--scope", "layer"])
    printed = capsys.readouterr().out
    assert "25.0% of the weights" in printed and "before" in printed
    card = (tmp_path / "new" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["tags"] == ["ewc_hf", "pruning"]
    for said in ("**25.0%**", "magnitude of each layer", "| before |", "| after ", "ewc-hf prune --model"):
        assert said in card
    for layer in prunable_layers(load(tmp_path / "new")).values():
        assert int((layer.weight == 0).sum()) == round(0.25 * layer.weight.numel())


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ({"sparsity": 1.5}, "expected a sparsity from 0 to 1, got 1.5"),
        ({"criterion": "fisher"}, "expected text for the criteria .*, got none for 'fisher'; name some"),
        ({"examples": blocks()}, "expected text for the criteria .*, got some for 'magnitude'; leave it out"),
        ({"criterion": "nowhere"}, "nowhere"),
        ({"scope": "neuron"}, "neuron"),
    ],
)
def test_refused(tmp_path, model, options, got):
    given = {"sparsity": 0.5, **options}
    with pytest.raises(ValueError, match=got):
        prune_checkpoint(model, tmp_path / "new", **given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_importance_of_other_weights(tmp_path, model):
    other = load(model)
    with torch.no_grad():
        other.get_parameter("transformer.h.0.mlp.c_fc.weight")[3, 4] += 1e-3
    estimate_importance(other, blocks(), num_examples=5, progress=False).save_pretrained(tmp_path / "stored")
    with pytest.raises(
        ValueError, match=r"got one of another 'transformer.h.0.mlp.c_fc.weight'; estimate it on these"
    ):
        prune_checkpoint(model, tmp_path / "new", 0.5, str(tmp_path / "stored"))


def test_the_checkpoint_s_own_precision(tmp_path):
    folder = save_tiny_checkpoint(tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    prune_checkpoint(folder, tmp_path / "new", 0.5)
    pruned = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    assert {p.dtype for p in pruned.parameters()} == {torch.bfloat16}


def test_never_over_another_model(tmp_path, model):
    with pytest.raises(ValueError, match="expected an output_dir that holds no model"):
        prune_checkpoint(model, model, 0.5)


def test_several_processes_are_refused(tmp_path, model, monkeypatch):
    monkeypatch.setattr(processes, "launched", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(ValueError, match="expected one process, got 2; launch with --num_processes 1"):
        prune_checkpoint(model, tmp_path / "out", 0.5)
    assert not (tmp_path / "out").exists()


def test_nothing_half_written(tmp_path, model, monkeypatch):
    def fails(*args):
        raise OSError("disk full")

    monkeypatch.setattr(pruned_checkpoint, "write_json", fails)
    with pytest.raises(OSError, match="disk full"):
        prune_checkpoint(model, tmp_path / "new", 0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]

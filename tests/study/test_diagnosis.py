"""Where a tuned model's forgetting sits: what is measured of each part, and what is written."""

import json

import pytest
import torch
from old_and_tuned import BOOK_TEXTS, save_models
from stored_by_tools import save_lora
from tiny import tiny_tokenizer
from transformers import AutoModelForCausalLM

from ewc_hf import Consolidation, evaluate_perplexity
from ewc_hf.__main__ import main
from ewc_hf.consolidation import depths_of, grouped, kind_of
from ewc_hf.study import diagnose, write_diagnosis

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's
KINDS = [
    "transformer.wte", "transformer.wpe", "transformer.h.*.ln_1", "transformer.h.*.attn.c_attn",
    "transformer.h.*.attn.c_proj", "transformer.h.*.ln_2", "transformer.h.*.mlp.c_fc", "transformer.h.*.mlp.c_proj",
    "transformer.ln_f",
]  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def consolidation(models):
    """One that is not of the line: importance is all that is read of it."""
    model = loaded(models / "old")
    importance = {
        name: torch.rand(p.shape, generator=torch.Generator().manual_seed(number))
        for number, (name, p) in enumerate(model.named_parameters())
    }
    anchor = dict(model.named_parameters())
    told = {"method": "fisher", "unit": "nats per token", "num_examples": 1, "num_tokens": 1}
    Consolidation.create(importance, anchor, **told).save_pretrained(models / "importance")
    return models / "importance", importance


@pytest.fixture(scope="module")
def diagnosis(models, consolidation):
    return diagnose(models / "old", models / "tuned", BOOK_TEXTS, consolidation=consolidation[0], progress=False)


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def nll(model):
    return evaluate_perplexity(model, tiny_tokenizer(), BOOK_TEXTS, progress=False).nll


def mixed(models, word, but=False):
    """The old model with what has a word in its name as it was tuned, or all but that."""
    old, tuned = loaded(models / "old"), dict(loaded(models / "tuned").named_parameters())
    with torch.no_grad():
        for name, weight in old.named_parameters():
            if (word in name) != but:
                weight.copy_(tuned[name])
    return old


def test_parts_are_the_kinds_of_layers_and_the_layers(diagnosis):
    assert [part.name for part in diagnosis.kinds] == KINDS
    assert [part.name for part in diagnosis.depths] == [
        "transformer.wte", "transformer.wpe", "layer 0", "layer 1", "transformer.ln_f"
    ]  # fmt: skip


def test_each_part_is_measured_alone_and_put_back(models, diagnosis):
    old, tuned = nll(loaded(models / "old")), nll(loaded(models / "tuned"))
    assert diagnosis.forgetting == pytest.approx(tuned - old)
    for part, word in ((diagnosis.kinds[6], ".mlp.c_fc."), (diagnosis.depths[3], ".h.1.")):
        assert part.alone == pytest.approx(nll(mixed(models, word)) - old, abs=1e-6)
        assert part.put_back == pytest.approx(tuned - nll(mixed(models, word, but=True)), abs=1e-6)
        assert part.alone != pytest.approx(part.put_back, rel=0.01)


def test_what_moved_and_what_that_predicts(models, consolidation, diagnosis):
    old, tuned = (dict(loaded(models / folder).named_parameters()) for folder in ("old", "tuned"))
    sums = {name: (consolidation[1][name] * (tuned[name] - old[name]).square()).sum().item() / 2 for name in old}
    assert diagnosis.predicted == pytest.approx(sum(sums.values()), rel=1e-5)
    for parts in (diagnosis.kinds, diagnosis.depths):
        assert sum(part.predicted for part in parts) == pytest.approx(diagnosis.predicted)
        assert sum(part.num_weights for part in parts) == sum(p.numel() for p in old.values())
    name = "transformer.wpe.weight"
    part = diagnosis.kinds[1]
    assert part.predicted == pytest.approx(sums[name], rel=1e-5)
    assert part.moved == pytest.approx(((tuned[name] - old[name]).norm() / old[name].norm()).item(), rel=1e-5)


def test_an_adapter_moves_what_it_adapts(models, tmp_path):
    save_lora(models / "old", tmp_path)
    found = diagnose(models / "old", tmp_path, BOOK_TEXTS, progress=False)
    moved = [part.name for part in found.kinds if part.moved > 0]
    assert found.predicted is None and 0 < len(moved) < len(KINDS)
    assert all(part.alone == part.put_back == 0 for part in found.kinds if part.moved == 0)


def test_the_page_has_both_tables_and_a_picture(diagnosis, tmp_path):
    page = write_diagnosis(diagnosis, tmp_path)
    assert (tmp_path / "diagnosis.md").read_text() == page
    assert page.count("| part ") == 2 and page.count("| sum ") == 2 and "predicted" in page
    assert (tmp_path / "diagnosis.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "diagnosis.json").read_text())["kinds"][0]["name"] == KINDS[0]


def test_the_command_prints_the_page(models, tmp_path, capsys):
    (tmp_path / "books.txt").write_text(BOOK_TEXTS[0])
    where = [
        "--base",
        str(models / "old"),
        "--tuned",
        str(models / "tuned"),
        "--retention",
        str(tmp_path / "books.txt"),
    ]
    main(["diagnose", *where, "--output_dir", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert printed.startswith("# Where the forgetting sits") and "predicted" not in printed
    assert (tmp_path / "out" / "diagnosis.md").read_text() in printed


def test_an_importance_in_another_unit_predicts_nothing(models, consolidation, tmp_path):
    stored = Consolidation.from_pretrained(consolidation[0])
    stored.metadata["unit"] = "its own"
    stored.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="expected an importance in 'nats per token', as Fisher's, got one in 'its own'"
    ):
        diagnose(models / "old", models / "tuned", BOOK_TEXTS, consolidation=tmp_path, progress=False)


def test_an_importance_of_another_model_is_refused(models, tmp_path):
    anchor = {"transformer.wte.weight": torch.ones(2, 3)}
    told = {"method": "fisher", "unit": "nats per token", "num_examples": 1, "num_tokens": 1}
    Consolidation.create(anchor, anchor, **told).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"expected an importance of this model, got one of 'transformer.wte.weight'"):
        diagnose(models / "old", models / "tuned", BOOK_TEXTS, consolidation=tmp_path, progress=False)


def test_of_many_layers_neighbours_are_taken_together():
    names = ["embed.weight", *(f"layers.{number}.mlp.weight" for number in range(30)), "head.weight"]
    parts = grouped(names, depths_of(names))
    assert list(parts)[:3] == ["embed", "layers 0 to 2", "layers 3 to 5"] and list(parts)[-2:] == [
        "layers 27 to 29", "head"
    ]  # fmt: skip
    assert grouped(names, kind_of).keys() == {"embed", "layers.*.mlp", "head"}

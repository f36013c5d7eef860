"""Models between an old and a tuned one: what is measured, which one is chosen, and what is written."""

import json

import numpy as np
import pytest
import torch
from old_and_tuned import BOOK_TEXTS, DIALOG_TEXTS, files, save, save_models, slide
from safetensors.torch import load_file
from stored_by_tools import save_lora
from tiny import tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import ewc_hf
from ewc_hf import evaluate_perplexity
from ewc_hf.evaluation import interval_over_documents
from ewc_hf.study import Interpolation, interpolate
from ewc_hf.study.budget import MaxForgetting

CURVE = {"interpolation.json", "interpolation.png"}
MODEL = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def chosen(models, tmp_path_factory):
    """The folder and the result of an interpolation with a budget."""
    output = tmp_path_factory.mktemp("chosen") / "slid"
    return output, slide(models, output, max_forgetting=0.05)


def read(model, texts=BOOK_TEXTS, **options):
    return evaluate_perplexity(model, tiny_tokenizer(), texts, progress=False, **options)


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def between(models, t):
    """The model of the formula, made without the package."""
    old, tuned = loaded(models / "old"), loaded(models / "tuned")
    with torch.no_grad():
        for weight, new in zip(old.parameters(), tuned.parameters(), strict=True):
            weight += t * (new - weight)
    return old


def test_the_curve_alone_is_of_eleven_models_and_writes_none(models, tmp_path):
    result = slide(models, tmp_path / "any" / "curve")
    assert [point.t for point in result.points] == pytest.approx(np.linspace(0, 1, 11))
    assert (result.chosen, result.budget) == (None, None)
    assert files(tmp_path / "any" / "curve") == CURVE
    assert files(tmp_path / "any") == {"curve"}


def test_a_point_is_the_model_of_the_formula(models, tmp_path):
    options = {"stride": 3, "window": 9, "max_document_tokens": 20, "bos_in_each_window": True, "seed": 5}
    start, point, _ = slide(models, tmp_path, points=3, **options).points
    model = between(models, 0.5)
    task, retention, before = (
        read(m, texts, **options)
        for m, texts in ((model, DIALOG_TEXTS), (model, BOOK_TEXTS), (loaded(models / "old"), BOOK_TEXTS))
    )
    assert point.t == 0.5
    assert (point.task_nll, point.task_perplexity) == pytest.approx((task.nll, task.perplexity), rel=1e-6)
    assert (point.retention_nll, point.retention_perplexity) == pytest.approx(
        (retention.nll, retention.perplexity), rel=1e-6
    )
    assert point.task_nll_interval == pytest.approx(task.nll_interval, rel=1e-6)
    assert point.retention_nll_interval == pytest.approx(retention.nll_interval, rel=1e-6)
    assert point.forgetting == pytest.approx(retention.nll - before.nll, rel=1e-5)
    rises = [new.nll_sum - old.nll_sum for new, old in zip(retention.documents, before.documents, strict=True)]
    tokens = [document.num_tokens for document in before.documents]
    paired = interval_over_documents(np.array(rises), np.array(tokens), seed=5)
    assert point.forgetting_interval == pytest.approx(paired, rel=1e-4)
    assert (start.forgetting, start.forgetting_interval) == (0, None)


def test_the_ends_are_the_models_themselves(models, tmp_path):
    first, last = slide(models, tmp_path, points=2).points
    for point, name in ((first, "old"), (last, "tuned")):
        model = loaded(models / name)
        assert (point.task_nll, point.retention_nll) == (read(model, DIALOG_TEXTS).nll, read(model).nll)
    assert last.forgetting > 0.5 and last.task_nll < first.task_nll - 0.5, "fine-tuning learns and forgets"


def test_the_written_model_forgets_what_the_budget_allows(models, chosen):
    output, result = chosen
    forgetting = read(loaded(output)).nll - read(loaded(models / "old")).nll
    assert 0.95 * 0.05 <= forgetting <= 0.05
    assert forgetting == pytest.approx(result.chosen.forgetting, abs=1e-6)
    assert read(loaded(output), DIALOG_TEXTS).nll == pytest.approx(result.chosen.task_nll, rel=1e-6)
    assert result.budget == MaxForgetting(0.05)
    assert 0 < result.chosen.t < 1 and result.chosen in result.points
    assert [point.t for point in result.points] == sorted({point.t for point in result.points})


@pytest.mark.parametrize("written", ["+10%", 0.1])
def test_a_budget_of_task_loss_is_met_too(models, tmp_path, written):
    result = slide(models, tmp_path / "out", max_task_loss=written, points=5)
    nll = read(loaded(tmp_path / "out"), DIALOG_TEXTS).nll
    assert 1.095 <= nll / read(loaded(models / "tuned"), DIALOG_TEXTS).nll <= 1.1
    assert {0.25, 0.5, 0.75} < {point.t for point in result.points}
    assert 0 < result.chosen.t < 1


@pytest.mark.parametrize(
    ("budget", "t", "name"),
    [({"max_forgetting": 9.0}, 1, "tuned"), ({"max_task_loss": "900%"}, 0, "old")],
    ids=["forgetting", "task loss"],
)
def test_a_budget_that_is_large_enough_chooses_an_end_bit_for_bit(models, tmp_path, budget, t, name):
    result = slide(models, tmp_path, **budget)
    assert (result.chosen.t, len(result.points)) == (t, 2)
    got, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path, models / name))
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_the_model_keeps_the_dtype_of_the_tuned_one(models, tmp_path):
    """The old one is in float32; the point is rounded once."""
    result = slide(models, tmp_path, "tuned_in_bfloat16", max_forgetting=0.05)
    base, tuned, got = (
        load_file(folder / "model.safetensors") for folder in (models / "old", models / "tuned_in_bfloat16", tmp_path)
    )
    for name, tensor in got.items():
        expected = torch.lerp(base[name], tuned[name].float(), result.chosen.t).bfloat16()
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, expected), name
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT asks for it
def test_an_adapter_slides_too(models, tmp_path):
    merged = save_lora(models / "old", tmp_path / "lora")
    result = interpolate(
        models / "old",
        tmp_path / "lora",
        BOOK_TEXTS,
        DIALOG_TEXTS,
        tmp_path / "out",
        max_forgetting=0.02,
        progress=False,
    )
    assert result.points[-1].retention_nll == pytest.approx(read(merged).nll, rel=1e-6)
    assert read(loaded(tmp_path / "out")).nll == pytest.approx(result.chosen.retention_nll, rel=1e-6)
    assert files(tmp_path / "out") == CURVE | MODEL | {"README.md"}


def test_what_belongs_to_the_model_lies_beside_it(models, chosen):
    output, _ = chosen
    assert files(output) == CURVE | MODEL | {"README.md"}
    assert files(output.parent) == {"slid"}
    text = BOOK_TEXTS[0]
    assert AutoTokenizer.from_pretrained(output)(text) == tiny_tokenizer()(text)


def test_the_generation_configuration_is_the_old_ones_where_the_tuned_one_has_none(models, tmp_path):
    for name in ("old", "tuned"):
        save(loaded(models / name), tmp_path / name)
    GenerationConfig(max_new_tokens=7).save_pretrained(tmp_path / "old")
    GenerationConfig(max_new_tokens=8).save_pretrained(tmp_path / "tuned")
    for expected in (8, 7):
        slide(tmp_path, tmp_path / f"{expected}", max_forgetting=9.0)
        assert GenerationConfig.from_pretrained(tmp_path / f"{expected}").max_new_tokens == expected
        (tmp_path / "tuned" / "generation_config.json").unlink(missing_ok=True)


def test_the_record_holds_all_points(chosen):
    output, result = chosen
    stored = json.loads((output / "interpolation.json").read_text())
    assert [point["t"] for point in stored["points"]] == [point.t for point in result.points]
    assert stored["points"][1]["forgetting_interval"] == list(result.points[1].forgetting_interval)
    assert stored["chosen"] == result.chosen.t
    assert stored["budget"] == {"max_forgetting": 0.05}
    assert stored["names"] == {"task": "dialogs", "retention": "books"}
    assert stored["measured"]["batch_size"] == 8
    assert stored.keys() >= {"base", "tuned", "versions"}


def test_it_is_public():
    assert ewc_hf.interpolate is interpolate
    assert isinstance(Interpolation, type)
    with pytest.raises(AttributeError, match="module 'ewc_hf' has no attribute 'extrapolate'"):
        ewc_hf.extrapolate  # noqa: B018


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_if_asked(models, tmp_path, capsys, progress):
    slide(models, tmp_path, points=2, progress=progress)
    assert ("interpolate: 100%" in capsys.readouterr().err) is progress

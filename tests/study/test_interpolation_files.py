"""The model card, the picture, how little memory a line takes, and that nothing is half-written."""

import io
import json
import shutil
import weakref

import numpy as np
import pytest
import torch
import yaml
from live_numbers import LiveBytes
from matplotlib.image import imread
from old_and_tuned import files, save_models, slide
from tiny import tiny_tokenizer

from ewc_hf.engines import sharding
from ewc_hf.storage import open_checkpoint
from ewc_hf.study import Interpolation, TextNames, WeightLine, checkpoints, line_ends
from ewc_hf.study.budget import MaxForgetting, MaxTaskLoss
from ewc_hf.study.interpolation_card import model_card
from ewc_hf.study.interpolation_files import write_model
from ewc_hf.study.interpolation_picture import draw_interpolation
from ewc_hf.study.line import line_tensors
from ewc_hf.study.line_ends import open_ends
from ewc_hf.study.line_points import LinePoint


def has_colour(picture, colour):
    """Whether 6 x 6 pixels somewhere are all of this colour, as inside a marker, not in lines and letters."""
    wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    same = np.abs(picture[..., :3] - wanted).max(-1) < 0.01
    return bool(np.lib.stride_tricks.sliding_window_view(same, (6, 6)).all((2, 3)).any())


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


def made_up(t, task_nll, forgetting, interval=(0.1, 0.3)):
    return LinePoint(
        t,
        task_nll,
        (task_nll - 0.1, task_nll + 0.1),
        9.5,
        2 + forgetting,
        None,
        8.25,
        forgetting,
        interval if t else None,
    )


POINTS = [made_up(0.0, 4.0, 0.0), made_up(0.25, 3.0, 0.04), made_up(0.5, 2.5, 0.2), made_up(1.0, 2.0, 1.0)]


def result(budget=None, chosen=None, base="someone/old", tuned="someone/tuned", points=POINTS):
    measured = {"stride": None, "window": 512}
    return Interpolation(base, tuned, points, budget, chosen, measured, TextNames("dialogs", "books"))


def test_the_card_tells_what_was_joined_and_what_that_costs(models, tmp_path):
    chosen = POINTS[1]
    card = model_card("slid", result(MaxForgetting(0.05), chosen, tuned=str(tmp_path)), "ewc-hf interpolate --base x")
    _, front, text = card.split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["base_model"] == ["someone/old"], "a folder is nothing that the Hub can show"
    assert (front["library_name"], front["pipeline_tag"]) == ("transformers", "text-generation")
    assert "# slid\n" in text and "**t = 0.25**" in text
    assert f"| tuned | `{tmp_path}` |" in text
    assert "| chosen as | the largest t found that forgets at most 0.05 nats per token |" in text
    assert "it keeps 50%,\nof what that cost on books 4%." in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    table = {row[0]: row[1:] for row in rows if len(row) == 6}
    assert table.keys() >= {"t", "0", "**0.25**", "0.5", "1"}
    assert table["0.5"] == ["2.5000 [2.4000, 2.6000]", "9.50", "2.2000", "8.25", "0.2000 [0.1000, 0.3000]"]
    assert table["0"][-1] == "0.0000"
    assert "](interpolation.png)" in text and "ewc-hf interpolate --base x" in text
    assert "stride: default, window: 512" in text


def test_a_card_of_folders_names_no_repository(tmp_path):
    budget = MaxTaskLoss(0.02)
    card = model_card("slid", result(budget, POINTS[0], base=str(tmp_path), tuned=str(tmp_path)), "x")
    assert "base_model" not in yaml.safe_load(card.split("---\n")[1])
    assert "the smallest t found whose NLL on the task is at most 2% above the tuned model's" in card


def test_a_card_says_how_its_model_was_made(models, tmp_path):
    for command, expected in (("a command", "a command"), (None, f'interpolate("{models / "old"}", ')):
        slide(models, tmp_path / expected[:5], max_forgetting=9.0, command=command)
        card = (tmp_path / expected[:5] / "README.md").read_text(encoding="utf-8")
        assert expected in card
        assert "| base  | " not in card and f"| base | `{models / 'old'}` |" in card


BUDGETS = {
    "no budget": (None, None),
    "forgetting": (MaxForgetting(0.05), POINTS[1]),
    "task loss": (MaxTaskLoss(0.3), POINTS[2]),
    "an end": (MaxForgetting(5.0), POINTS[3]),
}


@pytest.mark.parametrize(("budget", "chosen"), BUDGETS.values(), ids=BUDGETS)
def test_the_picture_shows_the_line_its_ends_and_what_was_chosen(budget, chosen):
    png = draw_interpolation(result(budget, chosen))
    assert png.startswith(b"\x89PNG")
    picture = imread(io.BytesIO(png))
    assert picture.shape[:2] == (825, 1200)
    colours = {"#0072B2": True, "#222222": True, "#D55E00": chosen is not None}
    assert {colour: has_colour(picture, colour) for colour in colours} == colours


def test_the_picture_of_two_equal_documents_and_of_one_alone():
    alone = [LinePoint(t, 2.0, None, 7.4, 2.0, None, 7.4, 0.0, None) for t in (0.0, 1.0)]
    beside = [made_up(0.0, 2.0, 0.0), made_up(1.0, 2.0, 0.5, interval=(0.6, 0.7))]
    for points in (alone, beside):
        assert draw_interpolation(result(points=points)).startswith(b"\x89PNG")


def test_a_move_holds_one_tensor_at_most(models, monkeypatch):
    """Rows are read, joined and dropped; the ends, which are on disk, are never in memory."""
    model = checkpoints.load_model(models / "tuned", torch.float32)
    names = list(line_tensors(model))
    line = WeightLine(model, *(open_checkpoint(models / end, names) for end in ("old", "tuned_in_bfloat16")))
    largest = max(p.numel() for p in model.parameters())
    monkeypatch.setattr(sharding, "_BLOCK_ELEMENTS", largest // 8)
    with LiveBytes() as live:
        line.move_to(0.5)
    assert 0 < live.peak <= 4 * largest
    assert sum(p.numel() for p in model.parameters()) > 2 * largest


def test_the_model_is_written_from_where_it_stands(models, tmp_path, monkeypatch):
    ends = open_ends(models / "old", models / "tuned_in_bfloat16", tmp_path)
    model = checkpoints.load_model(ends.model, torch.float32)
    size, largest = sum(p.numel() for p in model.parameters()), max(p.numel() for p in model.parameters())
    monkeypatch.setattr(sharding, "_BLOCK_ELEMENTS", largest // 8)
    with LiveBytes() as live:
        write_model(tmp_path, model, ends, tiny_tokenizer(), 0.5, "")
    assert 2 * size < live.peak <= 2 * size + 4 * largest, "the model in bfloat16, and one tensor"


def test_one_model_is_loaded_at_a_time(models, tmp_path, monkeypatch):
    load, loaded = checkpoints.load_model, []

    def watched(*where_and_how):
        assert [model() for model in loaded] == [None] * len(loaded)
        loaded.append(weakref.ref(model := load(*where_and_how)))
        return model

    for module in (checkpoints, line_ends):
        monkeypatch.setattr(module, "load_model", watched)
    slide(models, tmp_path, points=2)
    assert len(loaded) == 3


def test_an_error_while_writing_leaves_nothing(models, tmp_path, monkeypatch):
    monkeypatch.setattr("ewc_hf.study.interpolation.draw_interpolation", lambda result: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        slide(models, tmp_path / "out", max_forgetting=9.0)
    assert files(tmp_path) == set()


def test_a_model_joins_its_curve(models, tmp_path):
    """The curve first, then a budget, in the same folder, in which other files stay."""
    (tmp_path / "notes.txt").write_text("mine")
    slide(models, tmp_path, points=2)
    assert json.loads((tmp_path / "interpolation.json").read_text())["chosen"] is None
    slide(models, tmp_path, max_forgetting=9.0)
    assert json.loads((tmp_path / "interpolation.json").read_text())["chosen"] == 1
    assert files(tmp_path) > {"notes.txt", "model.safetensors", "README.md"}


def test_a_curve_alone_may_lie_beside_a_model(models, tmp_path):
    shutil.copytree(models / "tuned", tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "model.safetensors").read_bytes()
    slide(models, tmp_path, points=2)
    assert files(tmp_path) - files(models / "tuned") == {"interpolation.json", "interpolation.png"}
    assert (tmp_path / "model.safetensors").read_bytes() == before

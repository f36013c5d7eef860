import dataclasses
import io
import math

import numpy as np
import pytest
from made_up_records import PRETRAINED, curve, record, study
from matplotlib.image import imread

from ewc_hf.study import TextNames
from ewc_hf.study.picture import draw_pictures

BLUE, VERMILLION, GREEN, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#000000", "#666666"
SLOWER = dataclasses.replace(
    record("plain", 0, 0, 4.2, 4.5), name="plain-learning_rate=1e-4", overrides={"learning_rate": 1e-4}
)

INFINITE = dataclasses.replace(record("x", 1, 0, 4.2, 4.5), task_perplexity=math.inf)
WILD = record("x", 1, 0, 8.0, 9.0)


def title_width(picture):
    return np.flatnonzero((picture[:42, :, :3] < 0.5).any((0, 2))).max()


def draw(runs):
    return [imread(io.BytesIO(png)) for png in draw_pictures(runs, TextNames(), "A title")]


def rgb(colour):
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def places(picture, colour):
    """Where 6 x 6 pixels are all of this colour, as inside a marker, not in lines and letters; without the legend."""
    same = np.abs(picture[:660, :, :3] - rgb(colour)).max(-1) < 0.01
    return np.argwhere(np.lib.stride_tricks.sliding_window_view(same, (6, 6)).all((2, 3)))


def straight(run):
    """Perplexities that are the NLLs, which lie where they are easily found."""
    return dataclasses.replace(run, task_perplexity=run.task_nll, retention_perplexity=run.retention_nll)


@pytest.mark.parametrize(
    ("runs", "colours"),
    [
        pytest.param(study(), {BLUE: True, VERMILLION: True, GREEN: False, BLACK: True}, id="study"),
        pytest.param([PRETRAINED], {BLUE: False, BLACK: False, GREY: True}, id="pretrained only"),
        pytest.param(study()[:1] + study()[2:5], {BLUE: True, BLACK: False}, id="no plain run"),
        pytest.param(study()[:2], {BLUE: False, BLACK: True}, id="no method"),
        pytest.param([*curve(2, (5, math.nan, 0.5), method="x"), *study()], {BLUE: False, GREEN: True}, id="diverged"),
        pytest.param([*study(), INFINITE], {BLUE: True, VERMILLION: True, GREEN: False}, id="infinite"),
        pytest.param([*study(), WILD], {BLUE: True, VERMILLION: True, GREEN: False}, id="worse than pretrained"),
        pytest.param([PRETRAINED, SLOWER], {BLACK: True, BLUE: False}, id="a setting on no curve"),
    ],
)
def test_the_picture_shows_what_there_is(runs, colours):
    (picture,) = draw(runs)
    assert picture.shape[1] == 1200
    assert {colour: len(places(picture, colour)) > 0 for colour in colours} == colours


@pytest.mark.parametrize("strengths", [[(10, 4.3, 0.5)], [(10, 4.3, 0.5), (30, 4.4, 0.6)]], ids=["one", "two"])
def test_no_line_leads_from_plain_fine_tuning_to_the_smallest_strength(strengths):
    """Plain is at the left end, all of the method in the right half."""
    (picture,) = draw([straight(run) for run in (PRETRAINED, *curve(0, *strengths))])
    blue = (np.abs(picture[:660, :, :3] - rgb(BLUE)).max(-1) < 0.01).any(0)
    assert np.flatnonzero(blue).min() > 600


def test_a_line_leads_from_plain_fine_tuning_where_that_is_a_point_of_the_curve():
    plain, *fisher = curve(0, (10, 4.3, 0.5), (30, 4.4, 0.6))
    runs = [dataclasses.replace(plain, curves=dict.fromkeys(fisher[0].curves, 0.0)), *fisher]
    (picture,) = draw([straight(run) for run in (PRETRAINED, *runs)])
    blue = (np.abs(picture[:660, :, :3] - rgb(BLUE)).max(-1) < 0.01).any(0)
    assert np.flatnonzero(blue).min() < 300


@pytest.mark.parametrize(("number", "shows_last"), [(8, [True]), (9, [False, True]), (12, [False, True])])
def test_the_ninth_curve_and_all_after_it_are_in_a_second_picture_that_says_so(number, shows_last):
    names = [f"curve {i}" for i in range(1, number)]
    runs = [
        record("fisher", 1, 0, 4.05, 4.9 - 0.05 * i, name=name, curves={name: 1.0}) for i, name in enumerate(names)
    ]
    pictures = draw([straight(run) for run in (PRETRAINED, *curve(0), *runs, record("l2", 1, 0, 4.3, 4.2))])
    assert [len(places(picture, VERMILLION)) > 0 for picture in pictures] == shows_last
    assert all(len(places(picture, BLACK)) for picture in pictures), "plain fine-tuning is in both"
    assert len(pictures) == 1 or title_width(pictures[1]) > title_width(pictures[0]) + 100


def test_a_wild_model_leaves_the_frame_to_the_others():
    """The others' points are where they are without it."""
    (with_it,), (without,) = draw([*study(), WILD]), draw(study())
    corners = [[found.min(0), found.max(0)] for found in (places(with_it, BLUE), places(without, BLUE))]
    assert np.abs(np.subtract(*corners)).max() <= 2, "but for rounding, as the legend is longer"
    (alone,) = draw([PRETRAINED, WILD])
    assert len(places(alone, BLUE)) > 0


def test_both_pictures_have_the_same_frame():
    runs = [record(f"method {i}", 1, 0, 4.1 + 0.05 * i, 4.5) for i in range(12)]
    first, second = draw([PRETRAINED, *curve(0), *runs])
    assert places(first, BLACK).tolist() == places(second, BLACK).tolist()


def test_interpolated_models_leave_the_frame_to_the_trained_ones():
    runs = [PRETRAINED, *curve(0, (10, 4.1, 0.4), (30, 4.3, 0.6))]
    far = record("plain", 0, 0, 5.0, 4.3, name="plain-0.5", curves={"plain, interpolated": 0.5}, fraction=0.5)
    far = dataclasses.replace(far, label="0.5")
    (without,), (picture,) = draw(runs), draw([*runs, far])
    assert places(without, BLUE).tolist() == places(picture, BLUE).tolist()


def test_plain_fine_tuning_alone_shows_all_of_its_interpolated_models():
    plain = dataclasses.replace(record("plain", 0, 0, 4.0, 5.0), curves={"plain, interpolated": 0.0})
    far = dataclasses.replace(plain, name="plain-0.5", curves={"plain, interpolated": 0.5}, fraction=0.5, task_nll=5.3)
    (picture,) = draw([straight(run) for run in (PRETRAINED, plain, far)])
    columns = places(picture, BLACK)[:, 1]
    assert columns.max() < 400, "its star is at the left end, as the frame reaches to the interpolated one"
    assert places(picture, GREY)[:, 1].min() > 1000, "and the pretrained model is beyond it"


def test_bars_show_what_seeds_do_to_trained_models_only():
    def spread(nats, **fields):
        plain, fisher = curve(0, (10, 4.5, 0.5))
        seeds = [dataclasses.replace(fisher, seed=seed, task_nll=4.5 + nats * seed, **fields) for seed in (-1, 1)]
        frame = record("l2", 1, 0, 5.2, 4.2)
        (picture,) = draw([straight(run) for run in (PRETRAINED, plain, *seeds, frame)])
        return picture[:660].tolist()

    assert spread(0.0, fraction=0.5) == spread(0.01, fraction=0.5)
    assert spread(0.0) != spread(0.01)


def test_what_is_beside_the_points_is_their_label():
    plain, fisher = curve(0, (10, 4.5, 0.5))
    (labelled,), (bare,) = (draw([PRETRAINED, plain, dataclasses.replace(fisher, label=text)]) for text in ("w 1", ""))
    assert labelled.shape == bare.shape
    changed = np.argwhere((labelled != bare).any(-1))
    marker = places(labelled, BLUE).mean(0)
    assert 0 < len(changed) and np.abs(changed - marker).max() < 60


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_name_of_plain_fine_tuning_is_in_the_picture(side):
    """Nothing is drawn at the edges, as would be of a text that is cut there."""
    runs = curve(0, *([(10, 4.5, 0.4)] if side == "left" else [(10, 3.5, 0.4)]))
    (picture,) = draw([straight(run) for run in (PRETRAINED, *runs)])
    star = places(picture, BLACK)[:, 1].mean()
    assert (star < 600) == (side == "left")
    assert (picture[:, -6:] == 1).all() and (picture[:, :6] == 1).all()


@pytest.mark.parametrize("letters", [20, 44, 80])
def test_long_titles_are_not_cut(letters):
    titles = [f"{number} {'EWC (Fisher), decoupled, ' * 4}"[:letters] for number in range(3)]
    runs = [record("fisher", 1, 0, 4.1, 4.5, name=title, curves={title: 1.0}) for title in titles]
    (picture,) = draw([PRETRAINED, *runs])
    assert (picture[:, -6:] == 1).all() and (picture[-4:] == 1).all()

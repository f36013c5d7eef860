import dataclasses
import io
import math

import numpy as np
import pytest
from made_up_records import PRETRAINED, curve, record, study
from matplotlib.image import imread

from ewc_hf.study import TextNames
from ewc_hf.study.picture import draw_picture

SLOWER = dataclasses.replace(
    record("plain", 0, 0, 4.2, 4.5), name="plain-learning_rate=1e-4", overrides={"learning_rate": 1e-4}
)


def has_colour(picture, colour):
    """Whether 6 x 6 pixels somewhere are all of this colour, as inside a marker, not in lines and letters."""
    wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    same = np.abs(picture[..., :3] - wanted).max(-1) < 0.01
    return bool(np.lib.stride_tricks.sliding_window_view(same, (6, 6)).all((2, 3)).any())


@pytest.mark.parametrize(
    ("runs", "colours"),
    [
        pytest.param(study(), {"#0072B2": True, "#009E73": True, "#D55E00": False, "#222222": True}, id="study"),
        pytest.param([PRETRAINED], {"#0072B2": False, "#222222": False, "#666666": True}, id="pretrained only"),
        pytest.param(study()[:1] + study()[2:5], {"#0072B2": True, "#222222": False}, id="no plain run"),
        pytest.param(study()[:2], {"#0072B2": False, "#222222": True}, id="no method"),
        pytest.param(
            [*study(), *curve(2, (5, math.nan, 0.5), method="x")], {"#56B4E9": True, "#0072B2": True}, id="diverged"
        ),
        pytest.param([*study()[:2], SLOWER], {"#56B4E9": True, "#0072B2": False}, id="a setting without a lambda"),
    ],
)
def test_the_picture_shows_what_there_is(runs, colours):
    picture = imread(io.BytesIO(draw_picture(runs, TextNames(), "A title")))
    assert picture.shape[:2] == (825, 1200)
    assert {colour: has_colour(picture, colour) for colour in colours} == colours


@pytest.mark.parametrize("strengths", [[(10, 4.3, 0.5)], [(10, 4.3, 0.5), (30, 4.4, 0.6)]], ids=["one", "two"])
def test_no_line_leads_from_plain_fine_tuning_to_the_smallest_strength(strengths):
    """Plain is at the left end, all of the method, its entry in the legend too, in the right half."""
    runs = [dataclasses.replace(run, task_perplexity=run.task_nll) for run in curve(0, *strengths)]
    pretrained = dataclasses.replace(PRETRAINED, task_perplexity=5.5)
    picture = imread(io.BytesIO(draw_picture([pretrained, *runs], TextNames(), "A title")))
    blue = (np.abs(picture[..., :3] - [0, 0x72 / 255, 0xB2 / 255]).max(-1) < 0.01).any(0)
    assert np.flatnonzero(blue).min() > 600

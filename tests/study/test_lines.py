import dataclasses
import math

from made_up_records import PRETRAINED, curve, record, study

from ewc_hf.study.lines import labels_of, lines_of

BLUE, VERMILLION, BLACK = "#0072B2", "#D55E00", "#000000"


def shown(runs):
    return {line.title: (line.colour, line.style["ls"], line.style["marker"]) for line in lines_of(runs)}


def interpolated(run, curve, fraction=0.5):
    name = f"{run.name}-{curve}-{fraction}"
    return dataclasses.replace(run, name=name, curves={curve: 1 - fraction}, fraction=fraction, task_nll=4.5)


def test_a_curves_points_are_its_settings_by_rising_strength():
    fisher, l2 = lines_of([*study()[:1], *reversed(study()[1:])][::-1])
    assert (fisher.title, l2.title) == ("EWC (Fisher), loss", "L2 to start, loss")
    assert [[run.name for run in runs] for runs in fisher.settings] == [
        [f"fisher-loss-{strength}"] * 2 for strength in (10, 1000, 3000)
    ]
    assert [len(runs) for runs in l2.settings] == [2]


def test_they_come_in_order_of_first_appearance_and_plain_is_none():
    plain, fisher = curve(0, (10, 4.1, 0.4))
    runs = [
        dataclasses.replace(plain, curves={"plain, interpolated": 0.0}),
        record("plain", 0, 0, 4.2, 4.5, name="slower"),
        dataclasses.replace(fisher, curves={"Fisher": 10.0, "Fisher 10, interpolated": 0.0}),
        record("l2", 1, 0, 4.2, 4.5),
        interpolated(fisher, "Fisher 10, interpolated"),
        interpolated(plain, "plain, interpolated"),
    ]
    lines = ["plain, interpolated", "slower", "Fisher", "Fisher 10, interpolated", "L2 to start, loss"]
    assert list(shown([PRETRAINED, *runs])) == lines
    assert list(shown([PRETRAINED, plain])) == []
    assert list(shown([PRETRAINED, *runs[:1]])) == [], "nothing is interpolated yet"
    assert [line.interpolated for line in lines_of([PRETRAINED, *runs])] == [True, False, False, True, False]


def test_a_method_has_one_colour_and_its_curves_differ_in_style():
    plain, loss = curve(0, (10, 4.1, 0.4))
    _, decoupled = curve(0, (10, 4.1, 0.4), coupling="decoupled")
    runs = [
        plain,
        loss,
        decoupled,
        record("l2", 1, 0, 4.1, 4.5),
        interpolated(loss, "loss, interpolated"),
        interpolated(decoupled, "decoupled, interpolated"),
        interpolated(plain, "plain, interpolated"),
        record("fisher", 10, 0, 4.1, 4.5, name="single", curves={}),
        record("plain", 0, 0, 4.1, 4.5, name="slower"),
    ]
    assert shown([PRETRAINED, *runs]) == {
        "EWC (Fisher), loss": (BLUE, "-", "o"),
        "EWC (Fisher), decoupled": (BLUE, "--", "o"),
        "L2 to start, loss": (VERMILLION, "-", "o"),
        "loss, interpolated": (BLUE, ":", "x"),
        "decoupled, interpolated": (BLUE, ":", "+"),
        "plain, interpolated": (BLACK, ":", "x"),
        "single": (BLUE, "", "s"),
        "slower": (BLACK, "", "s"),
    }


def test_a_curve_that_begins_at_plain_fine_tuning_has_its_methods_colour():
    plain, fisher = curve(0, (10, 4.1, 0.4))
    runs = [dataclasses.replace(plain, curves=dict.fromkeys(fisher.curves, 0.0)), fisher]
    assert shown([PRETRAINED, *runs]) == {"EWC (Fisher), loss": (BLUE, "-", "o")}


def test_every_setting_is_labelled_once_with_its_mean_and_trained_ones_first():
    plain, fisher = curve(0, (10, 4.1, 0.4))
    between = "Fisher 10, interpolated"
    runs = [
        dataclasses.replace(plain, curves={"plain, interpolated": 0.0}),
        dataclasses.replace(interpolated(plain, "plain, interpolated"), label="0.5"),
        dataclasses.replace(fisher, curves={**fisher.curves, between: 0.0}),
        dataclasses.replace(fisher, seed=1, curves={**fisher.curves, between: 0.0}, task_perplexity=0.0),
        interpolated(fisher, between),
    ]
    labels = labels_of(lines_of([PRETRAINED, *runs]))
    assert [(text, colour) for text, _, colour in labels] == [("10", BLUE), ("", BLACK), ("0.5", BLACK), ("10", BLUE)]
    assert labels[0][1] == (math.exp(4.1) / 2, math.exp(4.6))


def test_no_two_of_many_lines_look_alike():
    runs = [record(f"method {i}", 1, 0, 4.1, 4.5) for i in range(16)]
    looks = shown([PRETRAINED, *runs])
    assert len(looks) == len(set(looks.values())) == 16
    assert len({colour for colour, *_ in list(looks.values())[:7]} | {BLACK}) == 8
    assert looks["method 0, loss"][0] == looks["method 7, loss"][0] == BLUE, "with the palette used up"

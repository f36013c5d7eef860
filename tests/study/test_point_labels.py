import pytest
from matplotlib.figure import Figure

from ewc_hf.study.labels import place_labels

MIDDLE = (5.0, 5.0)


def label(labels, lines=()):
    """The texts that are written on a 4 x 4 inch square of 0 to 10, lines being there already: axes, text -> box."""
    figure = Figure(figsize=(4, 4), dpi=100)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.set(xlim=(0, 10), ylim=(0, 10))
    axes.plot([0, 0], [0, 0])
    for x, y in lines:
        axes.plot(x, y)
    figure.draw_without_rendering()
    place_labels(axes, labels)
    return axes, {text.get_text(): text.get_window_extent() for text in axes.texts}


def test_a_label_stands_beside_its_point_above_to_the_right_darker_than_its_line():
    axes, boxes = label([("30", MIDDLE, "#0072B2")])
    x, y = axes.transData.transform(MIDDLE)
    assert boxes["30"].x0 > x and boxes["30"].y0 > y
    assert axes.texts[0].get_color() == pytest.approx([0, 0.7 * 0x72 / 255, 0.7 * 0xB2 / 255])


def test_labels_keep_off_lines():
    axes, boxes = label([("30", MIDDLE, "k")], [([4, 6], [5.35, 5.35])])
    assert boxes["30"].y1 < axes.transData.transform(MIDDLE)[1]


def test_where_all_sides_are_taken_there_is_no_label():
    everywhere = [([0, 10], [y / 10, y / 10]) for y in range(0, 100, 3)]
    assert label([("30", MIDDLE, "k")], everywhere)[1] == {}


def test_labels_do_not_overlap():
    above, left = ([0, 10], [6.1, 6.1]), ([4.8, 4.8], [0, 10])
    _, boxes = label([("low", MIDDLE, "k"), ("high", (5.0, 5.8), "k")], [above, left])
    assert not boxes["low"].overlaps(boxes["high"])


def test_labels_stay_in_the_frame():
    corners = {f"{x} {y}": (x, y) for x in (0, 10) for y in (0, 10)}
    axes, boxes = label([(text, place, "k") for text, place in corners.items()])
    assert boxes.keys() == corners.keys()
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes.values())
    assert all(axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1 for box in boxes.values())


def test_a_label_is_nearest_to_its_own_point():
    """Between two points side by side there is room for either's label, but whose it is would not be seen."""
    left, right = (5.0, 5.0), (5.8, 5.0)
    axes, boxes = label([("left", left, "k"), ("right", right, "k")], [([5, 5.8], [5.05, 5.05])])
    for text, own, other in (("left", left, right), ("right", right, left)):
        (x, y), (other_x, other_y) = axes.transData.transform([own, other])
        box = boxes[text]

        def away(x, y, box=box):
            return max(box.x0 - x, 0, x - box.x1) ** 2 + max(box.y0 - y, 0, y - box.y1) ** 2

        assert away(x, y) < away(other_x, other_y)


@pytest.mark.parametrize("place", [(float("nan"), 5.0), (15.0, 5.0)], ids=["of a diverged run", "out of the frame"])
def test_points_that_are_not_seen_have_no_label(place):
    assert list(label([("30", place, "k"), ("10", MIDDLE, "k")])[1]) == ["10"]


def test_a_point_without_a_text_has_no_label():
    assert label([("", MIDDLE, "k")])[1] == {}

import numpy as np
import pytest

from msr_d2.visualization.labels import fit_text, place_labels, wrap_parts
from msr_d2.visualization.style import PALETTE, class_color, load_font, text_color


def rectangles(corners, sizes):
    return np.concatenate([corners, corners + sizes], axis=1)


def overlap(first, second):
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    return (high - low).clip(min=0).prod()


def is_inside(placed, height, width):
    return (placed >= 0).all() and (placed <= [width, height, width, height]).all()


def test_a_label_sits_on_the_top_edge_of_its_box():
    corners = place_labels(np.array([[50.0, 60, 90, 95]]), np.array([[30, 10]]), (100, 200))
    assert corners.tolist() == [[50, 50]]


def test_a_box_at_the_top_gets_its_label_below():
    """Above, the label would have to move down onto the object."""
    corners = place_labels(np.array([[50.0, 0, 90, 40]]), np.array([[30, 10]]), (100, 200))
    assert corners.tolist() == [[50, 40]]


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_inside_and_apart_while_there_is_room(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-20, 600, (25, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 200, (25, 2))], axis=1)
    sizes = np.tile([200, 18], (25, 1))
    placed = rectangles(place_labels(boxes, sizes, (640, 640)), sizes)
    assert is_inside(placed, 640, 640)
    pairs = [(a, b) for a in range(25) for b in range(a)]
    assert sum(overlap(placed[a], placed[b]) for a, b in pairs) == 0


def test_more_labels_than_room_still_stay_inside():
    boxes = np.tile([10.0, 10, 20, 20], (40, 1))
    sizes = np.tile([60, 30], (40, 1))
    assert is_inside(rectangles(place_labels(boxes, sizes, (60, 80)), sizes), 60, 80)


def test_a_label_as_large_as_the_canvas():
    corners = place_labels(np.array([[5.0, 5, 6, 6]]), np.array([[40, 30]]), (30, 40))
    assert corners.tolist() == [[0, 0]]


def test_no_labels():
    assert place_labels(np.zeros((0, 4)), np.zeros((0, 2)), (10, 10)).shape == (0, 2)


def test_a_short_text_is_one_line_and_a_long_one_two():
    parts = ["circle 0.93", "IoU 0.81", "mask 0.75"]
    assert fit_text(parts, 13, 2000).lines == ["circle 0.93 | IoU 0.81 | mask 0.75"]
    assert fit_text(parts, 13, 300).lines == ["circle 0.93", "IoU 0.81 | mask 0.75"]


def test_a_text_shrinks_before_it_is_cut():
    width = load_font(13).getlength("rhinoceros 0.93") - 10
    block = fit_text(["rhinoceros 0.93"], 13, int(width))
    assert block.lines == ["rhinoceros 0.93"] and block.font_size < 13 and block.width <= width


def test_a_text_that_cannot_fit_keeps_its_score():
    block = fit_text(["a class with a very long name " * 5 + "0.93"], 13, 120)
    assert block.width <= 120
    assert "…" in block.lines[0] and block.lines[0].endswith("0.93")


def test_parts_are_wrapped_and_not_broken():
    parts = ["first number: class score", "IoU: predicted MaskIoU"]
    assert wrap_parts(parts, 13, 2000) == ["  |  ".join(parts)]
    assert wrap_parts(parts, 13, 200) == parts


def test_class_colors_are_stable_and_different():
    assert class_color(0) == PALETTE[0]
    colors = [class_color(index) for index in range(80)]
    assert len(set(colors)) == 80
    assert all(0 <= value <= 255 and isinstance(value, int) for c in colors for value in c)


def test_text_contrasts_with_its_background():
    assert text_color((255, 255, 255)) == (0, 0, 0)
    assert text_color((0, 0, 0)) == (255, 255, 255)

"""Each function against the same thing written in legacy ("+1") coordinates."""

import math

import numpy as np
import pytest
import torch
from detectron2.modeling.poolers import assign_boxes_to_levels
from detectron2.structures import Boxes
from hypothesis import given
from hypothesis import strategies as st

from msr_d2.layers.legacy_boxes import (
    clip_legacy_boxes,
    legacy_cell_anchors,
    legacy_levels,
    legacy_resize_shape,
    paste_legacy_masks,
    rescale_legacy_boxes,
)

# Anchors of the official FPN models as continuous boxes: stride, size, ratios 0.5, 1 and 2.
OFFICIAL_ANCHORS = [
    (4, 32, [[-22, -10, 26, 14], [-14, -14, 18, 18], [-10, -22, 14, 26]]),
    (8, 64, [[-40, -20, 48, 28], [-28, -28, 36, 36], [-20, -44, 28, 52]]),
    (16, 128, [[-84, -40, 100, 56], [-56, -56, 72, 72], [-36, -80, 52, 96]]),
    (32, 256, [[-164, -72, 196, 104], [-112, -112, 144, 144], [-76, -168, 108, 200]]),
    (64, 512, [[-332, -152, 396, 216], [-224, -224, 288, 288], [-148, -328, 212, 392]]),
]


def detectron_anchors(stride, sizes, ratios):
    """Detectron's recipe in legacy coordinates, step by step: ratios first, then scales."""

    def centered(width, height, cx, cy):
        return (
            cx - 0.5 * (width - 1),
            cy - 0.5 * (height - 1),
            cx + 0.5 * (width - 1),
            cy + 0.5 * (height - 1),
        )

    base = (0, 0, stride - 1, stride - 1)
    boxes = {}
    for r, ratio in enumerate(ratios):
        width, height = base[2] - base[0] + 1, base[3] - base[1] + 1
        cx, cy = base[0] + 0.5 * (width - 1), base[1] + 0.5 * (height - 1)
        new_width = np.round(np.sqrt(width * height / ratio))
        cell = centered(new_width, np.round(new_width * ratio), cx, cy)
        for s, size in enumerate(sizes):
            width, height = cell[2] - cell[0] + 1, cell[3] - cell[1] + 1
            cx, cy = cell[0] + 0.5 * (width - 1), cell[1] + 0.5 * (height - 1)
            boxes[s, r] = centered(width * size / stride, height * size / stride, cx, cy)
    return [boxes[key] for key in sorted(boxes)]


@pytest.mark.parametrize("stride, size, expected", OFFICIAL_ANCHORS)
def test_official_anchors(stride, size, expected):
    anchors = legacy_cell_anchors(stride, [size], [0.5, 1.0, 2.0])
    assert anchors.tolist() == expected


@given(
    st.sampled_from([2, 4, 8, 16, 32, 64]),
    st.lists(st.sampled_from([16, 24, 32, 50, 100, 512]), min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from([0.25, 1 / 3, 0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=3),
)
def test_anchors_of_any_size_follow_detectron(stride, sizes, ratios):
    expected = torch.tensor(detectron_anchors(stride, sizes, ratios), dtype=torch.float32)
    anchors = legacy_cell_anchors(stride, sizes, ratios)
    torch.testing.assert_close(anchors, expected + torch.tensor([0.0, 0, 1, 1]))


def random_boxes(num, generator, low=-40.0, high=140.0):
    corners = torch.rand(num, 2, 2, generator=generator) * (high - low) + low
    return torch.cat([corners.min(dim=1).values, corners.max(dim=1).values], dim=1)


def test_clipping_is_the_clamping_of_pixel_indices():
    boxes = random_boxes(200, torch.Generator().manual_seed(0))
    height, width = 70, 100
    pixel = boxes - torch.tensor([0.0, 0, 1, 1])
    expected = torch.stack(
        [pixel[:, i].clamp(0, (width if i % 2 == 0 else height) - 1) for i in range(4)], dim=1
    ) + torch.tensor([0.0, 0, 1, 1])
    clipped = clip_legacy_boxes(boxes, (height, width))
    torch.testing.assert_close(clipped, expected)
    assert (clipped[:, 2:] > clipped[:, :2]).all()  # detectron2's clipping would empty some
    again = Boxes(clipped.clone())
    again.clip((height, width))
    assert torch.equal(again.tensor, clipped)  # detectron2 may clip once more


def test_clipping_leaves_undefined_boxes_for_the_check_of_diverged_training():
    boxes = torch.tensor([[math.inf, 0, 5, 5], [0, math.nan, 5, 5], [-3, -3, 5, 500]])
    clipped = clip_legacy_boxes(boxes, (20, 30))
    assert torch.isinf(clipped[0, 0]) and torch.isnan(clipped[1, 1])
    assert clipped[2].tolist() == [0, 0, 5, 20]


def test_rescaling_multiplies_the_last_pixel():
    # Last pixels 30 and 40, times 2 and 0.5: 60 and 20; one more is the continuous edge.
    boxes = torch.tensor([[10.0, 20, 31, 41]])
    assert rescale_legacy_boxes(boxes, 2.0, 0.5).tolist() == [[20, 10, 61, 21]]


def test_levels_and_where_they_differ_from_detectron2():
    almost = 224 * (1 - 5e-7)  # below the canonical size by less than the epsilon
    sides = torch.tensor([1.0, 111, 112, 223.9, almost, 224, 447, 448, 4000])
    boxes = torch.stack([sides * 0, sides * 0, sides, sides], dim=1)
    levels = legacy_levels(boxes, min_level=2, max_level=5) + 2
    assert levels.tolist() == [2, 2, 3, 3, 4, 4, 4, 5, 5]
    ordinary = assign_boxes_to_levels([Boxes(boxes)], 2, 5, 224, 4) + 2
    assert ordinary.tolist() == [2, 2, 3, 3, 3, 4, 4, 5, 5]


def paste_by_loops(mask, box, height, width):
    """Padding 1, whole pixels, bilinear between cell centres, larger than one half."""
    side = len(mask) + 2
    padded = np.zeros((side, side))
    padded[1:-1, 1:-1] = mask
    x1, y1, x2, y2 = box[0], box[1], box[2] - 1, box[3] - 1
    cx, cy, factor = (x1 + x2) / 2, (y1 + y2) / 2, side / len(mask)
    half_w, half_h = (x2 - x1) / 2 * factor, (y2 - y1) / 2 * factor
    x1, y1, x2, y2 = (int(v) for v in (cx - half_w, cy - half_h, cx + half_w, cy + half_h))
    box_w, box_h = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    pasted = np.zeros((height, width), bool)
    for y in range(max(y1, 0), min(y1 + box_h, height)):
        for x in range(max(x1, 0), min(x1 + box_w, width)):
            v = max((y - y1 + 0.5) * side / box_h - 0.5, 0)
            u = max((x - x1 + 0.5) * side / box_w - 0.5, 0)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, side - 1), min(left + 1, side - 1)
            a, b = v - top, u - left
            value = (1 - a) * ((1 - b) * padded[top, left] + b * padded[top, right]) + a * (
                (1 - b) * padded[bottom, left] + b * padded[bottom, right]
            )
            pasted[y, x] = value > 0.5
    return pasted


def test_pasting_against_loops():
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(20, 7, 7, generator=generator)
    boxes = random_boxes(20, generator, low=-15, high=60)  # many reach out of the image
    pasted = paste_legacy_masks(masks, boxes, (40, 50))
    assert pasted.shape == (20, 40, 50) and pasted.dtype == torch.bool
    for mask, box, result in zip(masks.numpy(), boxes.tolist(), pasted.numpy()):
        expected = paste_by_loops(mask, box, 40, 50)
        assert (result != expected).sum() <= 1  # a value may round to either side of one half
    assert pasted.any(dim=(1, 2)).sum() > 10


def test_pasting_nothing_and_outside():
    assert paste_legacy_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 6)).shape == (0, 5, 6)
    outside = torch.tensor([[100.0, 100, 120, 120], [-50, -50, -20, -20]])
    assert not paste_legacy_masks(torch.ones(2, 28, 28), outside, (30, 30)).any()


@pytest.mark.parametrize(
    "height, width, expected",
    [
        (480, 640, (800, 1066)),  # 1066.67, which detectron2 rounds up
        (640, 480, (1066, 800)),
        (426, 640, (800, 1201)),  # 1201.88
        (300, 900, (444, 1332)),  # 2400 is too long: shorter side round(1333 / 3), then 444 * 3
        (800, 800, (800, 800)),
        (800, 1000, (800, 1000)),
    ],
)
def test_resize_shape(height, width, expected):
    assert legacy_resize_shape(height, width, 800, 1333) == expected

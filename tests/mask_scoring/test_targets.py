import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_d2.mask_scoring.targets import (
    ImageTargets,
    RasterizedMasks,
    class_ground_truth,
    logit,
    mask_areas,
    mask_iou_targets,
    rasterize_masks,
    selected_entries,
)
from msr_d2.testing import rectangle_instances

SQUARE = (10, 10, 60, 60)  # area 2500
# proposal, cells of the square inside it, target of an exact mask, target of a mask full of ones
ORACLES = [
    ((10, 10, 60, 60), 784, 1.0, 1.0),
    ((10, 10, 60, 35), 784, 0.5, 0.5),  # half of the square: 784 of 1568 cells
    ((0, 0, 70, 70), 400, 1.0, 400 / 784),
    ((35, 35, 85, 85), 196, 0.25, 196 / (784 + 784 - 196)),
]


def square_masks(kind, count=1):
    return rectangle_instances([SQUARE] * count, [0] * count, (100, 100), kind).gt_masks


@pytest.mark.parametrize("kind", ["polygon", "bitmask"])
@pytest.mark.parametrize("proposal, cells, exact, ones", ORACLES)
def test_hand_computed_targets(kind, proposal, cells, exact, ones):
    masks = square_masks(kind)
    boxes = torch.tensor([proposal], dtype=torch.float32)
    raster = rasterize_masks(masks, Boxes(boxes), 28, torch.device("cpu"))
    assert int(raster.sum()) == cells
    areas = mask_areas(masks)
    assert areas.tolist() == [2500]
    logits = torch.where(raster, 3.0, -3.0)
    assert mask_iou_targets(logits, raster, boxes, areas).item() == pytest.approx(exact, abs=1e-6)
    full = torch.ones(1, 28, 28)
    assert mask_iou_targets(full, raster, boxes, areas).item() == pytest.approx(ones, abs=1e-6)


def brute_force_target(logits, raster, box, area, threshold):
    """The published form: count cells one by one, full area = inside / ratio."""
    side = len(raster)
    predicted = [[logits[y][x] > threshold for x in range(side)] for y in range(side)]
    inside = sum(map(sum, raster))
    inter = sum(predicted[y][x] and raster[y][x] for y in range(side) for x in range(side))
    cell = (box[2] - box[0]) * (box[3] - box[1]) / side**2
    full = max(area / cell, inside)
    union = sum(map(sum, predicted)) + full - inter
    return inter / max(union, 1)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.0, 0.5, -1.0]))
def test_equals_a_loop_over_cells(seed, threshold):
    rng = np.random.default_rng(seed)
    side, count = 6, 3
    logits = rng.normal(size=(count, side, side))
    raster = rng.random((count, side, side)) < rng.random()
    corners = rng.random((count, 2)) * 30
    boxes = np.concatenate([corners, corners + 1 + rng.random((count, 2)) * 40], axis=1)
    areas = rng.random(count) * 2000
    got = mask_iou_targets(
        torch.tensor(logits),
        torch.tensor(raster),
        torch.tensor(boxes),
        torch.tensor(areas),
        threshold,
    )
    expected = [brute_force_target(*args, threshold) for args in zip(logits, raster, boxes, areas)]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert ((got >= 0) & (got <= 1)).all()


def test_degenerate_boxes_and_masks_give_finite_targets():
    boxes = torch.tensor([[5, 5, 5, 5], [0, 0, 100, 100], [0, 0, 1, 1], [20, 20, 10, 10.0]])
    raster = torch.zeros(4, 28, 28, dtype=torch.bool)
    raster[1] = True
    areas = torch.tensor([0.0, 10_000, 0, 50])
    for logits in (torch.full((4, 28, 28), -1.0), torch.full((4, 28, 28), 1.0)):
        target = mask_iou_targets(logits, raster, boxes, areas)
        assert torch.isfinite(target).all() and (target >= 0).all() and (target <= 1).all()
    assert target[1] == 1  # the full image, exactly predicted


def test_no_rois():
    target = mask_iou_targets(
        torch.zeros(0, 28, 28), torch.zeros(0, 28, 28).bool(), torch.zeros(0, 4), torch.zeros(0)
    )
    assert target.shape == (0,)


def test_polygon_area_sums_parts_and_bitmask_counts_pixels():
    parts = [np.array([0, 0, 10, 0, 10, 10, 0, 10.0]), np.array([20, 20, 24, 20, 24, 30, 20, 30.0])]
    assert mask_areas(PolygonMasks([parts])).tolist() == [140]
    bits = torch.zeros(2, 8, 8, dtype=torch.bool)
    bits[0, 2:4, 1:6] = True
    assert mask_areas(BitMasks(bits)).tolist() == [10, 0]


def test_unknown_masks_are_refused():
    with pytest.raises(TypeError, match="PolygonMasks or BitMasks"):
        mask_areas(torch.zeros(1, 2, 2))


def test_threshold_is_a_probability():
    assert logit(0.5) == 0
    assert logit(0.6224593312) == pytest.approx(0.5)  # what the first published code did
    for bad in (0.0, 1.0, -0.1, 2.0):
        with pytest.raises(ValueError, match="MASK_THRESHOLD"):
            logit(bad)


def test_stored_raster_is_given_back():
    raster = torch.rand(2, 28, 28) > 0.5
    masks = RasterizedMasks(raster)
    assert len(masks) == 2
    assert masks.crop_and_resize(torch.zeros(2, 4), 28) is raster
    with pytest.raises(AssertionError):
        masks.crop_and_resize(torch.zeros(3, 4), 28)


def test_image_targets_survive_selection():
    field = ImageTargets(targets=None, num_proposals=4)
    instances = Instances((10, 10), x=torch.arange(4), gt_image=field)
    assert len(instances[torch.tensor([True, False, True, False])].gt_image) == 2
    assert len(instances[torch.tensor([3])].gt_image) == 1
    assert len(instances[torch.zeros(4, dtype=torch.bool)].gt_image) == 0


@pytest.mark.parametrize("kind", ["polygon", "bitmask"])
def test_class_ground_truth_takes_matched_then_largest(kind):
    # Two objects of class 1, one of class 0; the RoI is matched to the smaller one of class 1.
    rectangles = [(0, 0, 20, 20), (0, 0, 10, 5), (10, 10, 20, 20)]
    targets = rectangle_instances(rectangles, [1, 1, 0], (40, 40), kind)
    targets.gt_mask_areas = mask_areas(targets.gt_masks)
    boxes = Boxes(torch.tensor([[0, 0, 20, 20.0], [0, 0, 8, 8]]))
    matched = rasterize_masks(targets.gt_masks[torch.tensor([1, 1])], boxes, 8, torch.device("cpu"))
    classes, areas = torch.tensor([1, 1]), torch.tensor([50.0, 50])
    masks, full = class_ground_truth(targets, boxes, classes, matched, areas, num_classes=3)
    assert masks.shape == (3, 2, 8, 8) and full.shape == (3, 2)
    assert torch.equal(masks[1], matched) and full[1].tolist() == [50, 50]
    assert masks[0, 0].sum() == 16 and full[0, 0] == 100  # a quarter of the first RoI
    assert not masks[0, 1].any()  # class 0 lies outside of the second RoI
    assert not masks[2].any()


def test_selected_entries_of_table_5():
    targets = torch.tensor([[0.8, 0.0], [0.2, 0.0]])
    present = torch.tensor([[True, False], [True, True]])
    assert selected_entries(targets, present, "positive", 0.3).tolist() == [
        [True, False],
        [False, False],
    ]
    assert selected_entries(targets, present, "all", 0.0).tolist() == [[True, True], [True, False]]


def test_no_masks_have_no_areas():
    assert mask_areas(BitMasks(torch.zeros(0, 4, 4))).shape == (0,)
    assert mask_areas(PolygonMasks([])).shape == (0,)

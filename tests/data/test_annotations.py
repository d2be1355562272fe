"""Normalizing segmentations and finding unusable annotations, case by case."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.structures import BoxMode
from tiny_coco import mask_of, polygon_of, rle_of

from msr_d2.data import annotations as A
from msr_d2.data.checks import usable_annotations

MASK = mask_of(10, 5, 30, 25)


@pytest.mark.parametrize("kind", ["string", "bytes", "list"])
def test_every_run_length_code_becomes_one_that_decodes(kind):
    segmentation, problem = A.normalize_segmentation(rle_of(MASK, kind))
    assert problem is None
    assert np.array_equal(mask_util.decode(segmentation), MASK)


def test_list_counts_that_start_with_the_object():
    mask = mask_of(0, 0, 4, 64)
    rle = rle_of(mask, "list")
    assert rle["counts"] == [0, 256, 64 * 96 - 256]
    segmentation, _ = A.normalize_segmentation(rle)
    assert np.array_equal(mask_util.decode(segmentation), mask)


def test_binary_array_is_encoded():
    segmentation, _ = A.normalize_segmentation(MASK)
    assert np.array_equal(mask_util.decode(segmentation), MASK)


def test_only_polygons_that_enclose_an_area_are_kept():
    good = polygon_of(1, 1, 5, 5)[0]
    assert A.normalize_segmentation([good, [1, 2, 3, 4], [1, 2, 3, 4, 5]]) == ([good], None)
    assert A.normalize_segmentation(good) == ([good], None)  # not nested


@pytest.mark.parametrize(
    "segmentation, problem",
    [
        (None, A.NO_MASK),
        ([], A.NO_MASK),
        ({}, A.NO_MASK),
        ([[1, 2, 3, 4]], A.FEW_POINTS),
        ([[]], A.FEW_POINTS),
        ([[1, 2, 3, 4, 5, 6, 7]], A.ODD_POLYGON),
        (["1 2 3 4 5 6"], A.UNKNOWN_MASK),
        ("mask.png", A.UNKNOWN_MASK),
        ({"size": [64, 96]}, A.UNKNOWN_MASK),
        ({"size": [4, 4], "counts": [3, 4]}, A.RLE_SUM),
        ({"size": [4, 4], "counts": [20, -4]}, A.RLE_SUM),
        ({"size": 16, "counts": [16]}, A.UNKNOWN_MASK),
        ({"size": [4, "4"], "counts": [16]}, A.UNKNOWN_MASK),
        ({"size": [4, 4], "counts": [16, "a"]}, A.UNKNOWN_MASK),
        ({"size": [4, 4], "counts": 16}, A.UNKNOWN_MASK),
    ],
)
def test_malformed_segmentations(segmentation, problem):
    assert A.normalize_segmentation(segmentation) == (None, problem)


def make(box=(10, 5, 30, 25), segmentation=None, mode=BoxMode.XYXY_ABS):
    segmentation = polygon_of(10, 5, 30, 25) if segmentation is None else segmentation
    return {"bbox": box, "bbox_mode": mode, "segmentation": segmentation, "category_id": 0}


@pytest.mark.parametrize(
    "annotation, problem",
    [
        (make(), None),
        (make((10, 5, 20, 20), mode=BoxMode.XYWH_ABS), None),
        (make((-10, -5, 1, 1)), None),  # partly inside
        (make((10, 5, 0, 20), mode=BoxMode.XYWH_ABS), A.EMPTY_BOX),
        (make((10, 5, 20, -1), mode=BoxMode.XYWH_ABS), A.EMPTY_BOX),
        (make((10, 5, 10, 25)), A.EMPTY_BOX),
        (make((float("nan"), 5, 30, 25)), A.NOT_FINITE),
        (make((10, 5, float("inf"), 25)), A.NOT_FINITE),
        (make((10, 5, None, 25)), A.NOT_FINITE),
        (make((96, 5, 100, 25)), A.OUTSIDE),
        (make((10, -9, 20, 0)), A.OUTSIDE),
        (make(()), A.NO_BOX),
        (make((1, 2, 3)), A.NO_BOX),
        (make(("a", 1, 2, 3)), A.NO_BOX),
        (make((True, 1, 2, 3)), A.NO_BOX),
        (make(5), A.NO_BOX),
        (make("1234"), A.NO_BOX),
        (make(np.array([10, 5, 30, 25], dtype=np.float32)), None),
        (make(segmentation=[[1, 1, 5, "a", 5, 5]]), A.UNKNOWN_MASK),
        (make(segmentation=[[1, 1, 5, [2], 5, 5]]), A.UNKNOWN_MASK),
        (make(None), A.NO_BOX),
        (make(segmentation=[[10, 5, 30, 25, 20, 15]]), A.ZERO_AREA),  # on a line
        (make(segmentation=[[10, 5, 30, float("nan"), 20, 15]]), A.NOT_FINITE),
        (make(segmentation=rle_of(MASK)), None),
        (make(segmentation=rle_of(MASK & False)), A.ZERO_AREA),
        (make(segmentation=rle_of(mask_of(1, 1, 5, 5, (96, 64)))), A.RLE_SIZE),
    ],
)
def test_problems(annotation, problem):
    usable, problems = usable_annotations([annotation], 64, 96, with_masks=True)
    assert [reason for _, reason in problems] == [problem] * (problem is not None)
    assert len(usable) == (problem is None)


def test_masks_do_not_matter_to_a_model_of_boxes():
    broken = make(segmentation=[[1, 2]])
    assert usable_annotations([broken], 64, 96, with_masks=False) == ([broken], [])


def test_crowd_regions_are_not_judged():
    crowd = {**make(()), "iscrowd": 1}
    assert usable_annotations([crowd], 64, 96, with_masks=True) == ([crowd], [])


@pytest.mark.parametrize(
    "polygon, area",
    [
        ([0, 0, 4, 0, 4, 3], 6.0),
        ([4, 3, 4, 0, 0, 0], 6.0),  # either direction
        ([10, 10, 14, 10, 14, 12, 10, 12], 8.0),
        ([0, 0, 4, 0, 4, 4, 2, 2, 0, 4], 12.0),  # concave: 16 - 4
    ],
)
def test_polygon_area(polygon, area):
    assert A.polygon_area(polygon) == area

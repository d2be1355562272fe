import numpy as np
import pytest
from toy_coco import annotation, encode, ground_truth, rectangle, to_coco

from msr_d2.evaluation import (
    coco_overlaps,
    correlation,
    figure2_table,
    format_figure2_table,
    oracle_scores,
    true_mask_iou,
)


def true_iou_of(annotations, detections):
    """True MaskIoU of (mask, category) detections in image 1."""
    results = [
        {"image_id": 1, "category_id": c, "segmentation": encode(m), "score": 0.5}
        for m, c in detections
    ]
    coco = to_coco(ground_truth(annotations, num_images=2, categories=(1, 2)))
    return true_mask_iou(coco_overlaps(coco, results, "segm"))


def test_true_mask_iou():
    annotations = [
        annotation(rectangle(0, 0, 10, 10)),
        annotation(rectangle(0, 0, 10, 4)),
        annotation(rectangle(0, 0, 20, 20), image_id=2),
        annotation(rectangle(10, 10, 20, 20), category_id=2),
    ]
    detections = [
        (rectangle(0, 0, 10, 5), 1),  # 50 / 100 with the first object, 40 / 50 with the second
        (rectangle(0, 0, 10, 10), 1),  # exact
        (rectangle(10, 10, 20, 20), 1),  # exact, but of another category
        (rectangle(5, 5, 15, 15), 2),  # 25 / 175
        (rectangle(0, 0, 0, 0), 2),  # empty mask
    ]
    np.testing.assert_allclose(true_iou_of(annotations, detections), [0.8, 1, 0, 25 / 175, 0])


def test_true_mask_iou_leaves_out_crowd_regions():
    crowd = annotation(rectangle(0, 0, 10, 10), iscrowd=1)
    inside = (rectangle(2, 2, 4, 4), 1)
    np.testing.assert_array_equal(true_iou_of([crowd], [inside]), [0])
    thing = annotation(rectangle(2, 2, 4, 6))
    np.testing.assert_array_equal(true_iou_of([crowd, thing], [inside]), [0.5])


def test_oracle_keeps_predicted_scores_where_nothing_overlaps():
    scores = oracle_scores(np.array([0.9, 0.8]), np.array([0.3, 0.2]), np.array([0.5, 0.0]))
    np.testing.assert_allclose(scores, [0.45, 0.2])


def test_correlation():
    assert correlation([0, 1, 2], [1, 3, 5]) == pytest.approx(1)
    assert correlation([0, 1, 2], [5, 3, 1]) == pytest.approx(-1)
    # Deviations (-1, 0, 1) and (0, -1, 1): 1 / (sqrt(2) * sqrt(2)).
    assert correlation([0, 1, 2], [1, 0, 2]) == pytest.approx(0.5)
    assert correlation([0, 1, np.nan, 5], [1, 3, 0, np.inf]) == pytest.approx(1)


@pytest.mark.parametrize("pairs", [([], []), ([1], [1]), ([1, 1], [0, 1]), ([np.nan], [1])])
def test_correlation_is_nan_where_it_is_undefined(pairs):
    assert np.isnan(correlation(*pairs))


def test_figure2_table():
    pairs = {
        # The third has a low class score, the fourth an IoU that is not above 0.5.
        "class_score": np.array([0.6, 0.8, 0.5, 0.9, 0.9]),
        "mask_score": np.array([0.3, 0.5, 0.9, 0.9, 0.8]),
        "true_mask_iou": np.array([0.52, 0.58, 0.55, 0.5, 0.93]),
    }
    table = figure2_table(pairs)
    np.testing.assert_array_equal(table["count"], [2, 0, 0, 0, 1])
    np.testing.assert_allclose(table["class_score"], [0.7, np.nan, np.nan, np.nan, 0.9])
    np.testing.assert_allclose(table["mask_score"], [0.4, np.nan, np.nan, np.nan, 0.8])
    lines = format_figure2_table(table).splitlines()
    assert len(lines) == 6
    assert lines[1].split(" | ")[1:] == ["         2", "           0.700", "          0.400"]

import contextlib
import io

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval
from toy_coco import annotation, encode, ground_truth, random_scene, rectangle, to_coco

from msr_d2.evaluation import Protocol, average_precision, coco_overlaps


def to_results(gt, predictions):
    ids = [x["id"] for x in gt["categories"]]
    results = []
    for image_id, p in enumerate(predictions, 1):
        for box, mask, score, label in zip(
            p.pred_boxes.tensor.tolist(), p.pred_masks.numpy(), p.scores, p.pred_classes
        ):
            x0, y0, x1, y1 = box
            results.append(
                {
                    "image_id": image_id,
                    "category_id": ids[label],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": encode(mask),
                    "score": float(score),
                }
            )
    return results


def pycocotools_eval(coco, results, iou_type, max_dets=(1, 10, 100), img_ids=None):
    with contextlib.redirect_stdout(io.StringIO()):
        hidden = {"bbox"} if iou_type == "segm" else set()
        copies = [{k: v for k, v in x.items() if k not in hidden} for x in results]
        evaluation = COCOeval(coco, coco.loadRes(copies), iou_type)
        evaluation.params.maxDets = list(max_dets)
        if img_ids is not None:
            evaluation.params.imgIds = img_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def ours(coco, results, iou_type, max_dets=(1, 10, 100), img_ids=None):
    if img_ids is not None:
        results = [x for x in results if x["image_id"] in img_ids]
    overlaps = coco_overlaps(coco, results, iou_type, img_ids)
    scores = np.array([x["score"] for x in results])
    return average_precision(overlaps, scores, Protocol(max_detections=max_dets))


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools_to_the_last_digit(seed, iou_type):
    gt, predictions = random_scene(seed)
    coco, results = to_coco(gt), to_results(gt, predictions)
    expected, result = (f(coco, results, iou_type) for f in (pycocotools_eval, ours))
    np.testing.assert_array_equal(result.precision, expected.eval["precision"])
    np.testing.assert_array_equal(result.recall, expected.eval["recall"])
    np.testing.assert_array_equal(result.stats, expected.stats)
    assert 0 < result.stats[0] < 1  # neither trivial nor empty
    assert (result.stats[3:6] >= 0).all()  # all area ranges occur


@pytest.mark.parametrize("max_dets", [(1, 2, 3), (1, 10, 5)])
def test_equals_pycocotools_with_other_limits(max_dets):
    gt, predictions = random_scene(0)
    coco, results = to_coco(gt), to_results(gt, predictions)
    expected, result = (f(coco, results, "segm", max_dets) for f in (pycocotools_eval, ours))
    np.testing.assert_array_equal(result.precision, expected.eval["precision"])
    np.testing.assert_array_equal(result.recall, expected.eval["recall"])


def test_equals_pycocotools_on_a_subset_of_the_images():
    gt, predictions = random_scene(1)
    coco, results = to_coco(gt), to_results(gt, predictions)
    expected, result = (
        f(coco, results, "segm", img_ids=[4, 2, 2]) for f in (pycocotools_eval, ours)
    )
    np.testing.assert_array_equal(result.stats, expected.stats)


def test_one_miss_before_one_hit():
    mask = rectangle(0, 0, 10, 10)
    coco = to_coco(ground_truth([annotation(mask)]))
    miss, hit = rectangle(10, 10, 20, 20), mask
    results = [
        {"image_id": 1, "category_id": 1, "segmentation": encode(m), "score": s}
        for m, s in [(miss, 0.9), (hit, 0.8)]
    ]
    # Precision is 1/2 where the recall becomes 1, hence 1/2 at all recall points.
    metrics = ours(coco, results, "segm").metrics()
    assert metrics["AP"] == pytest.approx(50)
    assert metrics["AR1"] == 0  # the only detection allowed is the miss
    assert metrics["AR10"] == 100
    assert metrics["APs"] == pytest.approx(50)
    assert np.isnan(metrics["APl"])


def test_thresholds_are_included():
    # 7 of 10 columns: IoU 0.7 is a match at the thresholds 0.50, 0.55, 0.60, 0.65 and 0.70.
    coco = to_coco(ground_truth([annotation(rectangle(0, 0, 10, 10))]))
    result = {"image_id": 1, "category_id": 1, "score": 1.0}
    result["segmentation"] = encode(rectangle(0, 0, 7, 10))
    assert ours(coco, [result], "segm").metrics()["AP"] == pytest.approx(50)


def test_detections_in_a_crowd_do_not_count():
    thing, crowd = rectangle(0, 0, 6, 6), rectangle(10, 10, 20, 20)
    coco = to_coco(ground_truth([annotation(crowd, iscrowd=1), annotation(thing)]))
    inside = [rectangle(11, 11, 14, 14), rectangle(15, 15, 19, 19)]
    results = [
        {"image_id": 1, "category_id": 1, "segmentation": encode(m), "score": s}
        for m, s in [(inside[0], 0.9), (inside[1], 0.8), (thing, 0.7)]
    ]
    # Both are ignored (a crowd region is matched twice): the thing is found without a miss.
    assert ours(coco, results, "segm").metrics()["AP"] == pytest.approx(100)


def test_an_object_is_found_once():
    mask = rectangle(0, 0, 10, 10)
    coco = to_coco(ground_truth([annotation(mask), annotation(rectangle(12, 12, 18, 18))]))
    result = {"image_id": 1, "category_id": 1, "segmentation": encode(mask)}
    metrics = ours(coco, [{**result, "score": s} for s in (0.9, 0.8)], "segm").metrics()
    assert metrics["AR100"] == 50
    # Recall 0, 0.01 ... 0.50 at precision 1: 51 of 101 points.
    assert metrics["AP"] == pytest.approx(100 * 51 / 101)


def test_no_detections():
    coco = to_coco(ground_truth([annotation(rectangle(0, 0, 5, 5))], categories=(1, 2)))
    result = ours(coco, [], "segm")
    metrics = result.metrics()
    assert metrics["AP"] == metrics["AR100"] == metrics["APs"] == 0
    assert np.isnan(metrics["APl"])  # no large object to find
    np.testing.assert_array_equal(result.category_ap(), [0, np.nan])


def test_no_ground_truth():
    coco = to_coco(ground_truth([]))
    result = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}
    assert all(np.isnan(x) for x in ours(coco, [result], "bbox").metrics().values())
    assert all(np.isnan(x) for x in ours(coco, [], "bbox").metrics().values())


def test_an_annotation_id_of_zero_is_an_annotation():
    # pycocotools takes "matched with annotation 0" for "not matched".
    gt = ground_truth([annotation(rectangle(0, 0, 10, 10))])
    gt["annotations"][0]["id"] = 0
    result = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5}
    assert ours(to_coco(gt), [result], "bbox").metrics()["AP"] == pytest.approx(100)


def test_areas_of_many_masks():
    # pycocotools fails on lists of more than 255 masks (numpy 2).
    mask = rectangle(0, 0, 3, 4)
    coco = to_coco(ground_truth([annotation(mask)]))
    result = {"image_id": 1, "category_id": 1, "segmentation": encode(mask), "score": 0.5}
    overlaps = coco_overlaps(coco, [result] * 300, "segm")
    np.testing.assert_array_equal(overlaps.det_area, np.full(300, 12))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_id": 7}, "image_ids, such as 7"),
        ({"segmentation": encode(np.ones((5, 6)))}, r"\[5, 6\].*\[20, 20\]"),
        ({"segmentation": [[0, 0, 5, 0, 5, 5]]}, "not a compressed RLE"),
    ],
)
def test_wrong_results_are_named(change, message):
    coco = to_coco(ground_truth([annotation(rectangle(0, 0, 5, 5))]))
    result = {"image_id": 1, "category_id": 1, "score": 0.5}
    result["segmentation"] = encode(rectangle(0, 0, 5, 5))
    with pytest.raises(ValueError, match=message):
        coco_overlaps(coco, [{**result, **change}], "segm")


def test_missing_masks_are_named():
    gt = ground_truth([annotation(rectangle(0, 0, 5, 5))])
    result = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}
    with pytest.raises(ValueError, match="no 'segmentation'"):
        coco_overlaps(to_coco(gt), [result], "segm")
    del gt["annotations"][0]["segmentation"]
    with pytest.raises(ValueError, match="annotation 1 of the ground truth has no segmentation"):
        coco_overlaps(to_coco(gt), [], "segm")


def test_unknown_categories_count_nowhere(caplog):
    coco = to_coco(ground_truth([annotation(rectangle(0, 0, 5, 5))]))
    good = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}
    overlaps = coco_overlaps(coco, [{**good, "category_id": 99, "score": 0.9}, good], "bbox")
    assert average_precision(overlaps, [0.9, 0.5]).metrics()["AP"] == pytest.approx(100)
    assert "[99]" in caplog.text


def test_wrong_arguments():
    coco = to_coco(ground_truth([annotation(rectangle(0, 0, 5, 5))]))
    with pytest.raises(ValueError, match="'mask'"):
        coco_overlaps(coco, [], "mask")
    with pytest.raises(ValueError, match="one score per detection"):
        average_precision(coco_overlaps(coco, [], "bbox"), [0.5])
    with pytest.raises(ValueError, match="three positive numbers"):
        Protocol(max_detections=(100,))

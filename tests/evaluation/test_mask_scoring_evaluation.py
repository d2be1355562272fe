import json
import logging
import pickle

import numpy as np
import pytest
from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm
from toy_coco import (
    annotation,
    evaluate,
    ground_truth,
    instances,
    random_scene,
    rectangle,
    register,
    scored_instances,
)

from msr_d2.evaluation import MaskScoringCOCOEvaluator

OBJECT = rectangle(0, 0, 10, 10)
QUARTER = rectangle(0, 0, 5, 5)
BOX = [0, 0, 10, 10]
ELSEWHERE = rectangle(12, 12, 20, 20)


def make_evaluator(gt, folder, **kwargs):
    return MaskScoringCOCOEvaluator(register(gt, folder), output_dir=str(folder), **kwargs)


def assert_same(result, expected):
    assert result.keys() == expected.keys()
    for task, metrics in expected.items():
        assert result[task].keys() == metrics.keys()
        for name, value in metrics.items():
            np.testing.assert_equal(result[task][name], value, err_msg=f"{task} {name}")


def two_masks_in_one_box(mask_iou):
    """A bad mask (IoU 1/4) with the higher class score, and an exact one, in the same box."""
    return scored_instances([QUARTER, OBJECT], [0.9, 0.8], mask_iou, boxes=[BOX, BOX])


def test_mask_scores_fix_the_ranking_of_masks_only(tmp_path):
    evaluator = make_evaluator(ground_truth([annotation(OBJECT)]), tmp_path)
    result = evaluate(evaluator, [two_masks_in_one_box(mask_iou=[0.25, 1.0])])
    # Both boxes are exact: the first one is a hit, the second a duplicate after full recall.
    assert result["bbox"]["AP"] == pytest.approx(100)
    # By class score the bad mask comes first: precision 1/2 at all recalls.
    assert result["segm_class_score"]["AP"] == pytest.approx(50)
    # 0.9 * 0.25 = 0.225 < 0.8 * 1.0.
    assert result["segm"]["AP"] == pytest.approx(100)
    summary = result["mask_scoring"]
    assert summary["AP_gain"] == pytest.approx(50)
    assert summary["AP50_gain"] == pytest.approx(50)
    assert summary["AP75_gain"] == pytest.approx(50)
    # True MaskIoU is (0.25, 1): the prediction and the mask score rise with it, 0.9 > 0.8 falls.
    assert summary["correlation"] == pytest.approx(1)
    assert summary["correlation_class_score"] == pytest.approx(-1)
    assert summary["correlation_mask_score"] == pytest.approx(1)
    assert summary["num_pairs"] == 2
    assert "segm_oracle" not in result


def test_oracle_uses_the_true_mask_iou(tmp_path):
    evaluator = make_evaluator(ground_truth([annotation(OBJECT)]), tmp_path, eval_oracle=True)
    # The prediction is upside down: 0.9 * 1.0 > 0.8 * 0.5. The oracle knows 0.225 < 0.8.
    result = evaluate(evaluator, [two_masks_in_one_box(mask_iou=[1.0, 0.5])])
    assert result["segm"]["AP"] == pytest.approx(50)
    assert result["segm_oracle"]["AP"] == pytest.approx(100)
    assert result["mask_scoring"]["correlation"] == pytest.approx(-1)


def test_oracle_keeps_the_score_of_masks_that_overlap_nothing(tmp_path):
    evaluator = make_evaluator(ground_truth([annotation(OBJECT)]), tmp_path, eval_oracle=True)
    # True MaskIoU 1/2 gives 0.8 * 0.5 = 0.4; the miss keeps its predicted 0.9 * 0.5 = 0.45.
    half = rectangle(0, 0, 10, 5)
    result = evaluate(evaluator, [scored_instances([ELSEWHERE, half], [0.9, 0.8], [0.5, 1.0])])
    assert result["segm"]["AP50"] == pytest.approx(100)
    assert result["segm_oracle"]["AP50"] == pytest.approx(50)


@pytest.mark.parametrize("seed", range(3))
def test_each_ranking_equals_the_stock_evaluator(tmp_path, seed):
    gt, predictions = random_scene(seed)
    name = register(gt, tmp_path)
    result = evaluate(
        MaskScoringCOCOEvaluator(name, output_dir=str(tmp_path / "ours"), eval_oracle=True),
        predictions,
    )
    stock = evaluate(COCOEvaluator(name, output_dir=str(tmp_path / "stock")), predictions)
    assert_same({"bbox": result["bbox"], "segm": result["segm_class_score"]}, stock)
    for p in predictions:
        p.scores = p.mask_scores
    rescored = evaluate(COCOEvaluator(name, output_dir=str(tmp_path / "stock")), predictions)
    assert_same({"segm": result["segm"]}, {"segm": rescored["segm"]})
    assert result["bbox"] != rescored["bbox"]  # the comparison can tell the two apart
    assert result["segm_oracle"]["AP"] > result["segm"]["AP"]


@pytest.mark.parametrize("kwargs", [{}, {"max_dets_per_image": 3}, {"tasks": ("segm",)}])
def test_without_mask_scores_it_is_the_stock_evaluator(tmp_path, kwargs):
    gt, predictions = random_scene(3)
    for p in predictions:
        p.remove("mask_scores")
        p.remove("mask_iou")
    name = register(gt, tmp_path)
    ours, stock = tmp_path / "ours", tmp_path / "stock"
    result = evaluate(MaskScoringCOCOEvaluator(name, output_dir=str(ours), **kwargs), predictions)
    assert_same(result, evaluate(COCOEvaluator(name, output_dir=str(stock), **kwargs), predictions))
    assert {x.name for x in ours.iterdir()} == {x.name for x in stock.iterdir()}
    file = "coco_instances_results.json"
    assert (ours / file).read_text() == (stock / file).read_text()


def test_limit_on_detections(tmp_path):
    gt, predictions = random_scene(4)
    name = register(gt, tmp_path)
    result, stock = (
        evaluate(cls(name, output_dir=str(tmp_path), max_dets_per_image=2), predictions)
        for cls in (MaskScoringCOCOEvaluator, COCOEvaluator)
    )
    assert_same({"bbox": result["bbox"], "segm": result["segm_class_score"]}, stock)


def test_selected_images(tmp_path):
    gt, predictions = random_scene(5)
    name = register(gt, tmp_path)
    results = []
    for cls in (MaskScoringCOCOEvaluator, COCOEvaluator):
        evaluator = cls(name, output_dir=str(tmp_path))
        evaluate(evaluator, predictions)
        evaluator.reset()
        for i, p in enumerate(predictions):
            evaluator.process([{"image_id": i + 1}], [{"instances": p}])
        results.append(evaluator.evaluate(img_ids=[2, 3]))
    ours, stock = results
    assert_same({"bbox": ours["bbox"], "segm": ours["segm_class_score"]}, stock)
    assert ours["mask_scoring"]["num_pairs"] == len(predictions[1]) + len(predictions[2])


def test_masks_only(tmp_path):
    evaluator = make_evaluator(ground_truth([annotation(OBJECT)]), tmp_path, tasks=("segm",))
    result = evaluate(evaluator, [two_masks_in_one_box([0.25, 1.0])])
    assert set(result) == {"segm", "segm_class_score", "mask_scoring"}
    assert result["segm"]["AP"] == pytest.approx(100)


def test_boxes_only(tmp_path):
    evaluator = make_evaluator(ground_truth([annotation(OBJECT)]), tmp_path, tasks=("bbox",))
    assert set(evaluate(evaluator, [two_masks_in_one_box([0.25, 1.0])])) == {"bbox"}


def test_overwritten_scores_do_not_change_the_results(tmp_path):
    evaluator = make_evaluator(ground_truth([annotation(OBJECT)]), tmp_path)
    prediction = two_masks_in_one_box([0.25, 1.0])
    expected = evaluate(evaluator, [prediction])
    prediction.class_scores, prediction.scores = prediction.scores, prediction.mask_scores
    assert_same(evaluate(evaluator, [prediction]), expected)


def test_crowd(tmp_path):
    crowd = annotation(rectangle(10, 10, 20, 20), iscrowd=1)
    evaluator = make_evaluator(ground_truth([annotation(OBJECT), crowd]), tmp_path)
    prediction = scored_instances([rectangle(11, 11, 15, 15), OBJECT], [0.9, 0.8], [1.0, 1.0])
    result = evaluate(evaluator, [prediction])
    # The detection in the crowd region is ignored, and its true MaskIoU is 0.
    assert result["segm"]["AP"] == result["segm_class_score"]["AP"] == pytest.approx(100)
    pairs = np.load(tmp_path / "mask_scoring_pairs.npz")
    np.testing.assert_array_equal(pairs["true_mask_iou"], [0, 1])


def test_no_detections(tmp_path):
    evaluator = make_evaluator(ground_truth([annotation(OBJECT)]), tmp_path, eval_oracle=True)
    result = evaluate(evaluator, [scored_instances([], [], [])])
    for task in ("bbox", "segm", "segm_class_score", "segm_oracle"):
        assert result[task]["AP"] == result[task]["AP50"] == result[task]["APs"] == 0
        assert np.isnan(result[task]["APl"])  # there is no large object
    assert result["mask_scoring"]["AP_gain"] == 0
    assert np.isnan(result["mask_scoring"]["correlation"])
    assert json.loads((tmp_path / "coco_segm_results.json").read_text()) == []
    assert json.loads((tmp_path / "coco_instances_results.json").read_text()) == []


def test_no_detections_of_a_model_without_mask_scores(tmp_path):
    evaluator = make_evaluator(ground_truth([annotation(OBJECT)]), tmp_path)
    result = evaluate(evaluator, [instances([], [])])
    assert set(result) == {"bbox", "segm"}
    assert result["bbox"]["AP"] == result["segm"]["AP"] == 0


def test_no_detections_of_a_model_without_masks(tmp_path):
    evaluator = make_evaluator(ground_truth([annotation(OBJECT)]), tmp_path)
    prediction = instances([], [])
    prediction.remove("pred_masks")
    result = evaluate(evaluator, [prediction])
    assert set(result) == {"bbox"}
    assert result["bbox"]["AP"] == 0


def test_images_without_detections_beside_others(tmp_path):
    gt = ground_truth([annotation(OBJECT), annotation(OBJECT, image_id=2)], num_images=2)
    evaluator = make_evaluator(gt, tmp_path)
    result = evaluate(
        evaluator, [scored_instances([], [], []), scored_instances([OBJECT], [0.9], [1.0])]
    )
    assert result["segm"]["AP"] == pytest.approx(100 * 51 / 101)  # recall 1/2


def test_no_ground_truth(tmp_path):
    evaluator = make_evaluator(ground_truth([]), tmp_path)
    result = evaluate(evaluator, [scored_instances([OBJECT], [0.9], [0.5])])
    for task in ("bbox", "segm", "segm_class_score"):
        assert np.isnan(result[task]["AP"])
    assert np.isnan(result["mask_scoring"]["AP_gain"])
    assert result["mask_scoring"]["num_pairs"] == 1


def test_two_result_files(tmp_path):
    gt = ground_truth([annotation(OBJECT, category_id=7)], categories=(3, 7))
    evaluator = make_evaluator(gt, tmp_path)
    evaluate(evaluator, [scored_instances([OBJECT], [0.8], [0.5], classes=[1])])
    (boxes,) = json.loads((tmp_path / "coco_instances_results.json").read_text())
    (masks,) = json.loads((tmp_path / "coco_segm_results.json").read_text())
    assert boxes["score"] == pytest.approx(0.8)
    assert boxes["mask_score"] == pytest.approx(0.4)
    assert boxes["mask_iou"] == pytest.approx(0.5)
    assert boxes["bbox"] == [0, 0, 10, 10]
    # No box: a server would take its area for that of the mask.
    assert set(masks) == {"image_id", "category_id", "segmentation", "score"}
    assert masks["score"] == pytest.approx(0.4)
    assert boxes["category_id"] == masks["category_id"] == 7  # the gap 3, 7 is mapped once


def test_category_gaps_are_mapped_once_even_if_evaluated_twice(tmp_path):
    gt = ground_truth([annotation(OBJECT, category_id=7)], categories=(3, 7))
    evaluator = make_evaluator(gt, tmp_path)
    prediction = scored_instances([OBJECT], [0.8], [0.5], classes=[1])
    first = evaluate(evaluator, [prediction])
    assert first["segm"]["AP-class 7"] == pytest.approx(100)
    assert np.isnan(first["segm"]["AP-class 3"])
    assert_same(evaluator.evaluate(), first)


def test_withheld_annotations(tmp_path):
    gt = ground_truth([], categories=(3, 7))
    del gt["annotations"]
    evaluator = make_evaluator(gt, tmp_path)
    assert evaluate(evaluator, [scored_instances([OBJECT], [0.8], [0.5], classes=[1])]) == {}
    (boxes,) = json.loads((tmp_path / "coco_instances_results.json").read_text())
    (masks,) = json.loads((tmp_path / "coco_segm_results.json").read_text())
    assert (boxes["score"], masks["score"]) == (pytest.approx(0.8), pytest.approx(0.4))
    assert boxes["category_id"] == masks["category_id"] == 7
    assert not (tmp_path / "mask_scoring_pairs.npz").exists()


def test_withheld_annotations_and_no_detections(tmp_path):
    gt = ground_truth([])
    del gt["annotations"]
    evaluator = make_evaluator(gt, tmp_path)
    assert evaluate(evaluator, [scored_instances([], [], [])]) == {}
    assert json.loads((tmp_path / "coco_segm_results.json").read_text()) == []


def test_pairs_file(tmp_path):
    gt = ground_truth(
        [annotation(OBJECT, category_id=7, image_id=2)], num_images=2, categories=(3, 7)
    )
    evaluator = make_evaluator(gt, tmp_path)
    predictions = [
        scored_instances([ELSEWHERE], [0.6], [0.5]),
        scored_instances([rectangle(0, 0, 10, 8)], [0.8], [0.75], classes=[1]),
    ]
    evaluate(evaluator, predictions)
    pairs = np.load(tmp_path / "mask_scoring_pairs.npz")
    expected = {
        "class_score": [0.6, 0.8],
        "mask_iou": [0.5, 0.75],
        "mask_score": [0.3, 0.6],
        "true_mask_iou": [0, 0.8],
        "category_id": [3, 7],
        "image_id": [1, 2],
    }
    assert set(pairs) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(pairs[key], value)


def test_tables_are_logged_where_detectron2_logs(tmp_path, caplog):
    evaluator = make_evaluator(ground_truth([annotation(OBJECT)]), tmp_path)
    with caplog.at_level(logging.INFO, logger="detectron2"):
        evaluate(evaluator, [two_masks_in_one_box([0.25, 1.0])])
    for title in ("ranked by the mask score", "ranked by the class score", "AP_gain"):
        loggers = [x.name for x in caplog.records if title in x.getMessage()]
        # "d2." where another test has set up detectron2's formatter, which shortens the name.
        assert loggers and all(name.startswith(("detectron2.", "d2.")) for name in loggers)
    # One detection has a class score and a MaskIoU above 0.5: 0.8, times 1.0.
    assert "0.9 - 1.0    |          1 |            0.800 |           0.800" in caplog.text


def test_json_without_area_and_iscrowd(tmp_path):
    gt = ground_truth([annotation(OBJECT)])
    for key in ("area", "iscrowd"):
        del gt["annotations"][0][key]
    result = evaluate(make_evaluator(gt, tmp_path), [two_masks_in_one_box([0.25, 1.0])])
    assert result["segm"]["AP"] == result["segm"]["APs"] == pytest.approx(100)


def test_gathered_predictions_keep_their_scores(tmp_path, monkeypatch):
    """Each process has half of the images; what it sends is pickled."""
    gt, predictions = random_scene(6)
    name = register(gt, tmp_path)
    expected = evaluate(MaskScoringCOCOEvaluator(name), predictions)
    workers = []
    for rank in range(2):
        evaluator = MaskScoringCOCOEvaluator(name)
        evaluator.reset()
        for i in range(rank, len(predictions), 2):
            evaluator.process([{"image_id": i + 1}], [{"instances": predictions[i]}])
        workers.append(evaluator)
    sent = [pickle.dumps(x._predictions) for x in workers]
    monkeypatch.setattr(comm, "gather", lambda data, dst=0: [pickle.loads(x) for x in sent])
    result = workers[0].evaluate()
    # The order of the images has changed, and with it that of equal scores in different images:
    # no number but these depends on it.
    assert result["mask_scoring"]["num_pairs"] == expected["mask_scoring"]["num_pairs"]
    for key in ("correlation", "correlation_mask_score"):
        assert result["mask_scoring"][key] == pytest.approx(expected["mask_scoring"][key])
    assert result["segm"]["AP"] == pytest.approx(expected["segm"]["AP"])
    assert result["segm"] != result["segm_class_score"]

import contextlib
import io
import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from toy_coco import encode, rectangle, to_coco
from toy_ytvis import ELSEWHERE, SQUARE, annotation, ground_truth, random_videos, result

from msr_d2.evaluation import evaluate_ytvis_results, ytvis_overlaps
from msr_d2.evaluation.ytvis_eval import YTVIS_AREAS, evaluate_ytvis
from msr_d2.evaluation.ytvis_truth import load_ytvis


@pytest.fixture
def reference(shared_data):
    folder = shared_data / "eval_ref" / "ytvis"
    if not folder.is_dir():
        pytest.skip(f"no reference results at {folder}")
    return folder


def test_official_numbers(reference):
    expected = json.loads((reference / "expected.json").read_text())
    evaluated = evaluate_ytvis_results(reference / "gt.json", reference / "results.json")
    official = expected["official"]
    assert evaluated["segm"]["AP"] / 100 == pytest.approx(
        official["video_mask_mAP_50_95"], rel=1e-14
    )
    assert evaluated["bbox"]["AP"] / 100 == pytest.approx(
        official["video_bbox_mAP_50_95"], rel=1e-14
    )
    for task, numbers in expected["recomputed"].items():
        for name, value in numbers.items():
            value = value * 100 if value >= 0 else np.nan
            assert evaluated[task][name] == pytest.approx(value, rel=1e-14, nan_ok=True)


class BruteForceEval(COCOeval):
    """pycocotools' matching and averages, on IoUs that are counted pixel by pixel."""

    def computeIoU(self, video_id, category_id):
        dets, truths = self._dts[video_id, category_id], self._gts[video_id, category_id]
        order = np.argsort([-x["score"] for x in dets], kind="mergesort")
        dets = [dets[i] for i in order][: self.params.maxDets[-1]]
        if not dets or not truths:
            return []
        return np.array([[_pixel_iou(d["masks"], g["masks"]) for g in truths] for d in dets])

    def _prepare(self):
        self.params.iouType = "bbox"  # do not look for masks in its own format
        super()._prepare()


def _pixel_iou(detected, true):
    intersection = union = 0
    for d, g in zip(detected, true):
        empty = np.zeros(1, dtype=bool)
        d = empty if d is None else mask_util.decode(d).astype(bool)
        g = empty if g is None else mask_util.decode(g).astype(bool)
        intersection += (d & g).sum()
        union += (d | g).sum()
    return intersection / union if union else 0


def _as_image_results(entries):
    converted = []
    for i, x in enumerate(entries):
        areas = [mask_util.area(m) for m in x["segmentations"] if m is not None]
        areas = [a for a in areas if a > 0]
        converted.append(
            {
                "id": i + 1,
                "image_id": x["video_id"],
                "category_id": x["category_id"],
                "score": x.get("score"),
                "iscrowd": x.get("iscrowd", 0),
                "area": np.mean(areas) if areas else 0,
                "masks": x["segmentations"],
            }
        )
    return converted


def brute_force(gt, results, max_dets=(1, 10, 100)):
    images = {"images": gt["videos"], "categories": gt["categories"]}
    coco_gt = to_coco({**images, "annotations": _as_image_results(gt["annotations"])})
    with contextlib.redirect_stdout(io.StringIO()):
        coco_dt = COCO()
        coco_dt.dataset = {**images, "annotations": _as_image_results(results)}
        coco_dt.createIndex()
        evaluation = BruteForceEval(coco_gt, coco_dt, "bbox")
        evaluation.params.areaRng = [list(x) for x in YTVIS_AREAS.values()]
        evaluation.params.maxDets = list(max_dets)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("seed", range(5))
def test_equals_brute_force(seed):
    gt, results = random_videos(seed)
    expected = brute_force(gt, results)
    assert 0 < expected[0] < 1 and (expected >= 0).all()  # neither trivial nor undefined
    evaluated = list(evaluate_ytvis(gt, results, "segm").values())[:12]
    np.testing.assert_array_equal(evaluated, expected * 100)


def test_one_absent_frame():
    gt = ground_truth([annotation([SQUARE] * 3 + [None])], lengths=(4,))
    # Frames: exact, exact, missed, imagined. IoU = 200 / 400: found at the threshold 0.5 only.
    found = result([SQUARE, SQUARE, None, SQUARE], 0.9)
    numbers = evaluate_ytvis(gt, [found], "segm")
    assert numbers["AP50"] == pytest.approx(100)
    assert numbers["AP75"] == 0
    assert numbers["AP"] == pytest.approx(10)
    assert numbers["AR1"] == pytest.approx(10)


def test_a_track_needs_the_whole_video():
    gt = ground_truth([annotation([SQUARE, ELSEWHERE])])
    # Exact in one frame only: 100 / (100 + 64 + 100).
    numbers = evaluate_ytvis(gt, [result([SQUARE, SQUARE], 0.9)], "segm")
    assert numbers["AP50"] == 0


def test_crowds_are_ignored():
    crowd = annotation([SQUARE, SQUARE], iscrowd=1)
    gt = ground_truth([crowd, annotation([ELSEWHERE, ELSEWHERE])])
    results = [result([SQUARE, SQUARE], 0.9), result([ELSEWHERE, ELSEWHERE], 0.8)]
    assert evaluate_ytvis(gt, results, "segm")["AP"] == pytest.approx(100)
    # A part of a crowd is no match, other than for images: the IoU is 1/4 and it is a miss.
    results[0] = result([rectangle(0, 0, 5, 5)] * 2, 0.9)
    assert evaluate_ytvis(gt, results, "segm")["AP"] == pytest.approx(50)


def test_ties_keep_the_order_of_the_results():
    gt = ground_truth([annotation([SQUARE, SQUARE])])
    hit, miss = result([SQUARE, SQUARE], 0.5), result([ELSEWHERE, ELSEWHERE], 0.5)
    assert evaluate_ytvis(gt, [hit, miss], "segm")["AP"] == pytest.approx(100)
    assert evaluate_ytvis(gt, [miss, hit], "segm")["AP"] == pytest.approx(50)


def test_videos_without_objects_count_as_misses():
    gt = ground_truth([annotation([SQUARE, SQUARE])], lengths=(2, 3))
    results = [result([SQUARE] * 3, 0.9, video_id=2), result([SQUARE] * 2, 0.8)]
    assert evaluate_ytvis(gt, results, "segm")["AP"] == pytest.approx(50)


def test_no_results_and_no_ground_truth():
    gt = ground_truth([annotation([SQUARE, SQUARE])], categories=(1, 2))
    numbers = evaluate_ytvis(gt, [], "segm")
    assert numbers["AP"] == numbers["AR10"] == numbers["AP-class 1"] == 0
    assert np.isnan(numbers["AP-class 2"])
    nothing = evaluate_ytvis(ground_truth([]), [result([SQUARE, SQUARE], 0.9)], "segm")
    assert all(np.isnan(x) for x in nothing.values())


def test_limit_is_per_video():
    gt = ground_truth([annotation([SQUARE] * 2, v) for v in (1, 2)], lengths=(2, 2))
    results = [result([SQUARE] * 2, 0.9, v) for v in (1, 2)]
    assert evaluate_ytvis(gt, results, "segm")["AR1"] == 100


def test_areas_are_means_over_the_visible_frames():
    big, small = rectangle(0, 0, 200, 100, (200, 200)), rectangle(0, 0, 2, 2, (200, 200))
    # (20000 + 4) / 2 is below 128 * 128, 20000 alone is above.
    masks = [[big, None, small], [big, None, None]]
    areas = [np.mean([m.sum() for m in x if m is not None]) for x in masks]
    gt = ground_truth([annotation(x) for x in masks], lengths=(3,), size=(200, 200))
    overlaps = ytvis_overlaps(gt, [result(x, 0.5) for x in masks], "segm")
    np.testing.assert_array_equal(overlaps.gt_area, areas)
    np.testing.assert_array_equal(overlaps.det_area, areas)
    # The file's own areas count for the ground truth, as officially; zeros are no frames.
    gt["annotations"][0]["areas"] = [7, None, 0]
    overlaps = ytvis_overlaps(gt, [], "segm")
    np.testing.assert_array_equal(overlaps.gt_area, [7, areas[1]])
    del gt["annotations"][0]["areas"]
    np.testing.assert_array_equal(ytvis_overlaps(gt, [], "segm").gt_area, areas)


def test_forms_of_masks_are_equal():
    rle = encode(SQUARE)
    column_runs = [0] + [10, 10] * 10 + [200 - 10 + 10]  # ten columns of ten pixels
    column_runs[-2:] = [column_runs[-2] + column_runs[-1]]
    polygon = [[0, 0, 10, 0, 10, 10, 0, 10]]
    forms = [
        polygon,
        {"size": [20, 20], "counts": column_runs},
        {"size": [20, 20], "counts": rle["counts"].encode()},
    ]
    for form in forms:
        gt = ground_truth([{**annotation([SQUARE] * 2), "segmentations": [form, None]}])
        overlaps = ytvis_overlaps(gt, [result([SQUARE, None], 0.5)], "segm")
        assert overlaps.cells[0].ious.tolist() == [[1]], form


def test_boxes_come_from_the_masks_where_there_are_none():
    gt = ground_truth([annotation([SQUARE, None], bboxes=[[0, 0, 10, 5], None])])
    overlaps = ytvis_overlaps(gt, [result([SQUARE, None], 0.5)], "bbox")
    assert overlaps.cells[0].ious.tolist() == [[0.5]]
    assert overlaps.det_area.tolist() == [100]
    # Boxes alone are enough as ground truth.
    del gt["annotations"][0]["segmentations"]
    assert evaluate_ytvis(gt, [result([SQUARE, None], 0.5)], "bbox")["AP50"] == pytest.approx(100)


BROKEN = {"size": [20, 20], "counts": [0, 900]}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"video_id": 9}, "result number 0 is of video_id 9, which the ground truth does not"),
        ({"category_id": 0}, r"result number 0 has category_id 0, the ground truth has only \[1\]"),
        ({"score": None}, "result number 0 has score None"),
        ({"score": float("nan")}, "result number 0 has score nan"),
        ({"segmentations": [None]}, "0 of video 1 has 1 entries, but the video has 2 frames"),
        ({"segmentations": [None, encode(np.ones((4, 5)))]}, r"frame 1 of video 1 .*\[4, 5\]"),
        ({"segmentations": None}, "number 0 of video 1 has no 'segmentations'"),
        ({"segmentations": [None, "abc"]}, "number 0 in frame 1 of video 1 is neither null nor"),
        ({"segmentations": [{"counts": "abc"}, None]}, "frame 0 of video 1 is neither null nor"),
        ({"segmentations": [BROKEN, None]}, "covers 900 pixels, but a frame of video 1 has 400"),
    ],
)
def test_wrong_results_are_named(change, message):
    gt = ground_truth([annotation([SQUARE, SQUARE])])
    with pytest.raises(ValueError, match=message):
        evaluate_ytvis(gt, [{**result([SQUARE] * 2, 0.5), **change}], "segm")


@pytest.mark.parametrize("key", ["video_id", "category_id", "score"])
def test_missing_keys_of_results_are_named(key):
    wrong = result([SQUARE] * 2, 0.5)
    del wrong[key]
    results = [result([SQUARE] * 2, 0.5), wrong]
    with pytest.raises(ValueError, match=f"result number 1 has .*{key}|number 1 has score None"):
        evaluate_ytvis(ground_truth([annotation([SQUARE, SQUARE])]), results, "segm")
    with pytest.raises(ValueError, match="result number 0 is a str, not an object"):
        evaluate_ytvis(ground_truth([]), ["abc"], "segm")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"video_id": 9}, "annotation 2 is of video_id 9, which"),
        ({"category_id": 3}, r"annotation 2 has category_id 3, the ground truth has only \[1\]"),
        ({"segmentations": [None] * 3}, "annotation 2 of video 1 has 3 entries, but .* 2 frames"),
        ({"segmentations": [encode(np.ones((4, 5))), None]}, r"annotation 2 in frame 0 .*\[4, 5\]"),
        ({"segmentations": None}, "annotation 2 of video 1 has no 'segmentations'"),
    ],
)
def test_wrong_annotations_are_named(change, message):
    wrong = {**annotation([SQUARE, SQUARE]), **change}
    gt = ground_truth([annotation([SQUARE, SQUARE]), wrong])
    with pytest.raises(ValueError, match=message):
        evaluate_ytvis(gt, [], "segm")


def test_wrong_boxes_are_named():
    gt = ground_truth([annotation([SQUARE, None], bboxes=[[0, 0, 10, 10], None])])
    found = {"video_id": 1, "category_id": 1, "score": 0.5, "bboxes": [[0, 0, 10], None]}
    with pytest.raises(ValueError, match=r"result number 0 in frame 0 is \[0, 0, 10\]"):
        evaluate_ytvis(gt, [found], "bbox")
    with pytest.raises(ValueError, match="'bboxes' of result number 0 .* has 1 entries"):
        evaluate_ytvis(gt, [{**found, "bboxes": [None]}], "bbox")


def test_wrong_videos_and_categories_are_named(tmp_path):
    good = ground_truth([])
    video = good["videos"][0]
    without_length = {k: v for k, v in video.items() if k != "length"}
    for change, message in (
        ({"videos": [without_length]}, "wrong.json: video 1 has no 'length'"),
        ({"videos": [video, video]}, r"wrong.json: the videos have the ids \[1\] more than once"),
        ({"categories": [{"name": "x"}]}, "wrong.json: category number 0 has no 'id'"),
        ({"annotations": [{"id": 5, "video_id": 1}]}, "annotation 5 has no 'category_id'"),
    ):
        with pytest.raises(ValueError, match=message):
            load_ytvis(write(tmp_path / "wrong.json", {**good, **change}))


def test_what_the_training_takes_is_taken(tmp_path, caplog):
    """A video without length, an annotation of a video that is not there."""
    gt = ground_truth([annotation([SQUARE] * 2), annotation([SQUARE] * 2, video_id=9)])
    del gt["videos"][0]["length"]
    gt["videos"][0]["file_names"] = ["0.jpg", "1.jpg"]
    content = load_ytvis(write(tmp_path / "gt.json", gt))
    assert content["videos"][0]["length"] == 2
    assert [x["id"] for x in content["annotations"]] == [1]
    assert "1 annotations of" in caplog.text and "belong to no video" in caplog.text
    assert evaluate_ytvis(content, [result([SQUARE] * 2, 0.5)], "segm")["AP"] == pytest.approx(100)


def test_masks_are_compared_with_boxes_where_only_these_are_true(tmp_path, caplog):
    gt = ground_truth([annotation([SQUARE, None], bboxes=[[0, 0, 10, 5], None])])
    del gt["annotations"][0]["segmentations"]
    paths = write(tmp_path / "gt.json", gt), write(tmp_path / "r.json", [result([SQUARE, None], 1)])
    evaluated = evaluate_ytvis_results(*paths)
    assert set(evaluated) == {"bbox"} and evaluated["bbox"]["AP50"] == pytest.approx(100)
    assert f"mask AP needs masks in {paths[0]}" in caplog.text
    with pytest.raises(ValueError, match="annotation 1 of video 1 has no 'segmentations'"):
        evaluate_ytvis_results(*paths, tasks=["segm"])


def test_areas_of_videos_of_different_lengths_are_not_mixed():
    gt = ground_truth([annotation([SQUARE] * 2), annotation([ELSEWHERE] * 3, 2)], lengths=(2, 3))
    results = [result([ELSEWHERE, SQUARE, None], 0.5, 2), result([None, SQUARE], 0.5)]
    overlaps = ytvis_overlaps(gt, results, "segm")
    assert overlaps.det_area.tolist() == [82, 100] and overlaps.gt_area.tolist() == [100, 64]
    # Intersections 64 and 100; unions 64 + 164 + 64, and 200.
    ious = {int(x.detections[0]): x.ious.tolist() for x in overlaps.cells}
    assert ious == {0: [[64 / 292]], 1: [[0.5]]}


def test_wrong_task():
    with pytest.raises(ValueError, match="'masks'"):
        evaluate_ytvis(ground_truth([]), [], "masks")


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_files(tmp_path):
    gt = ground_truth([annotation([SQUARE, SQUARE])])
    gt_path = write(tmp_path / "gt.json", gt)
    results = write(tmp_path / "results.json", [result([SQUARE] * 2, 0.5)])
    evaluated = evaluate_ytvis_results(gt_path, results)
    assert set(evaluated) == {"segm"}
    assert evaluated["segm"]["AP"] == pytest.approx(100)
    scores = write(tmp_path / "scores.json", [{"video_id": 1, "category_id": 1, "score": 0.5}])
    with pytest.raises(ValueError, match="not all results of .*scores.json have 'bboxes', nor"):
        evaluate_ytvis_results(gt_path, scores)
    with pytest.raises(ValueError, match=r"gt.json holds a dict"):
        evaluate_ytvis_results(gt_path, gt_path)
    with pytest.raises(ValueError, match=r"results.json has no \['categories', 'videos'\]"):
        evaluate_ytvis_results(results, results)
    missing = {k: gt[k] for k in ("videos", "categories")}
    for withheld in ({**gt, "annotations": None}, {**gt, "annotations": []}, missing):
        with pytest.raises(ValueError, match="only the evaluation server"):
            evaluate_ytvis_results(write(tmp_path / "test.json", withheld), results)

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from toy_coco import rectangle
from toy_ytvis import (
    ELSEWHERE,
    SQUARE,
    annotation,
    evaluate,
    ground_truth,
    random_videos,
    register,
    segmentations,
    to_outputs,
)

from msr_d2 import get_cfg
from msr_d2.evaluation import YTVISEvaluator, build_evaluator
from msr_d2.evaluation.ytvis_eval import evaluate_ytvis

GAPS = ground_truth([annotation([SQUARE, SQUARE], category_id=7)], categories=(3, 7))
MASKS = torch.tensor(np.array([SQUARE, SQUARE]))


def test_tensors_and_category_gaps(tmp_path):
    output = {"scores": torch.tensor([0.9]), "labels": torch.tensor([1]), "masks": MASKS[None]}
    evaluator = YTVISEvaluator(register(GAPS, tmp_path), output_dir=str(tmp_path))
    evaluated = evaluate(evaluator, [output])
    assert evaluated["segm"]["AP-class 7"] == pytest.approx(100)
    assert np.isnan(evaluated["segm"]["AP-class 3"])
    (entry,) = json.loads((tmp_path / "results.json").read_text())
    assert set(entry) == {"video_id", "category_id", "score", "segmentations"}
    assert (entry["video_id"], entry["category_id"]) == (1, 7)
    assert entry["score"] == pytest.approx(0.9)
    assert entry["segmentations"] == segmentations([SQUARE, SQUARE])


@pytest.mark.parametrize("prefix", ["", "pred_"])
@pytest.mark.parametrize("in_list", [True, False])
@pytest.mark.parametrize("form", ["tensor", "array", "rle"])
def test_forms_of_output_are_equal(tmp_path, prefix, in_list, form):
    forms = {"tensor": MASKS, "array": MASKS.numpy(), "rle": segmentations([SQUARE, SQUARE])}
    output = {"scores": [0.9], "labels": [1], "masks": [forms[form]]}
    output = {prefix + k: v for k, v in output.items()}
    evaluator = YTVISEvaluator(register(GAPS, tmp_path))
    evaluator.reset()
    evaluator.process([{"video_id": 1}], [output] if in_list else output)
    assert evaluator.evaluate()["segm"]["AP"] == pytest.approx(100)


def test_frames_without_a_pixel_are_null(tmp_path):
    masks = torch.tensor(np.array([SQUARE, np.zeros_like(SQUARE)]))
    output = {"scores": [0.9], "labels": [1], "masks": [masks]}
    evaluate(YTVISEvaluator(register(GAPS, tmp_path), output_dir=str(tmp_path)), [output])
    (entry,) = json.loads((tmp_path / "results.json").read_text())
    assert entry["segmentations"] == segmentations([SQUARE, None])


def test_equals_the_evaluation_of_the_results(tmp_path):
    gt, results = random_videos(0)
    evaluator = YTVISEvaluator(
        register(gt, tmp_path), tasks=("segm", "bbox"), output_dir=str(tmp_path)
    )
    evaluated = evaluate(evaluator, to_outputs(gt, results))
    ordered = sorted(results, key=lambda x: x["video_id"])
    for task in ("segm", "bbox"):
        expected = evaluate_ytvis(gt, ordered, task)
        assert evaluated[task] == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    # All masks are rectangles, so that boxes overlap as much as masks.
    assert evaluated["bbox"] == evaluated["segm"]
    assert json.loads((tmp_path / "results.json").read_text()) == ordered


@pytest.mark.parametrize("annotations", ["null", "empty", "missing"])
def test_withheld_annotations(tmp_path, annotations, caplog):
    caplog.set_level("INFO", logger="detectron2")
    gt = {**GAPS, "annotations": [] if annotations == "empty" else None}
    if annotations == "missing":
        del gt["annotations"]
    output = {"scores": [0.9], "labels": [1], "masks": [MASKS]}
    evaluator = YTVISEvaluator(register(gt, tmp_path), output_dir=str(tmp_path / "out"))
    assert evaluate(evaluator, [output]) == {}
    assert ".json has no annotations: nothing is evaluated." in caplog.text
    with zipfile.ZipFile(tmp_path / "out" / "results.zip") as archive:
        assert archive.namelist() == ["results.json"]
        content = archive.read("results.json").decode()
    assert content == (tmp_path / "out" / "results.json").read_text()
    assert len(json.loads(content)) == 1


BOXES = [[0, 0, 10, 10], None]


def boxes_only(masks=None):
    """An annotation with boxes, and what stands for masks: nothing, null, or a list of nulls."""
    boxed = annotation([None, None], category_id=7, bboxes=BOXES)
    if masks == "empty masks":
        boxed["segmentations"] = [[], []]
    elif masks != "nulls":
        boxed["segmentations"] = [] if masks == "empty" else None
    if masks == "missing":
        del boxed["segmentations"]
    return boxed


@pytest.mark.parametrize("masks", ["missing", "null", "empty", "nulls", "empty masks"])
@pytest.mark.parametrize("tasks", [("segm",), ("segm", "bbox")])
def test_boxes_are_enough_for_box_ap(tmp_path, masks, tasks, caplog):
    name = register(ground_truth([boxes_only(masks)], categories=(3, 7)), tmp_path)
    evaluator = YTVISEvaluator(name, tasks)
    file = MetadataCatalog.get(name).json_file
    assert f"box AP of tracks; mask AP needs masks in {file}" in caplog.text
    track = torch.tensor(np.array([SQUARE, np.zeros_like(SQUARE)]))
    evaluated = evaluate(evaluator, [{"scores": [0.9], "labels": [1], "masks": [track]}])
    assert set(evaluated) == {"bbox"} and evaluated["bbox"]["AP"] == pytest.approx(100)
    # 10 of 20 rows are too many: the IoU is 0.5.
    track[0, :, :] = torch.tensor(rectangle(0, 0, 10, 20))
    evaluated = evaluate(evaluator, [{"scores": [0.9], "labels": [1], "masks": [track]}])
    assert evaluated["bbox"]["AP"] == pytest.approx(10)


def test_masks_alone_are_evaluated_as_before(tmp_path, caplog):
    evaluator = YTVISEvaluator(register(GAPS, tmp_path))
    assert evaluator._tasks == ["segm"] and "box AP" not in caplog.text


@pytest.mark.parametrize(
    "wrong, message",
    [
        (boxes_only("missing"), "annotation 2 of video 1 has boxes but no masks"),
        (boxes_only("nulls"), "annotation 2 of video 1 has boxes but no masks"),
        ({**GAPS["annotations"][0], "segmentations": [None]}, "annotation 2 .* has 1 entries"),
        (
            {**GAPS["annotations"][0], "segmentations": [{"size": [4, 5], "counts": "1"}, None]},
            r"annotation 2 in frame 0 of video 1 has size \[4, 5\]",
        ),
    ],
)
def test_wrong_annotations_are_named_when_the_evaluator_is_made(tmp_path, wrong, message):
    gt = ground_truth([*GAPS["annotations"], wrong], categories=(3, 7))
    name = register(gt, tmp_path)
    with pytest.raises(ValueError, match=rf"{name}.json: .*{message}"):
        YTVISEvaluator(name)


def test_wrong_boxes_are_named_when_the_evaluator_is_made(tmp_path):
    name = register(ground_truth([{**boxes_only(), "bboxes": [[1, 2, 3], None]}]), tmp_path)
    # The category comes first.
    with pytest.raises(ValueError, match=f"{name}.json: annotation 1 has category_id 7"):
        YTVISEvaluator(name)
    gt = ground_truth([{**boxes_only(), "bboxes": [[1, 2, 3], None]}], categories=(7,))
    with pytest.raises(
        ValueError, match=r"json: the box of annotation 1 in frame 0 is \[1, 2, 3\]"
    ):
        YTVISEvaluator(register(gt, tmp_path))


def test_an_object_that_is_seen_nowhere_has_masks(tmp_path):
    gt = ground_truth([*GAPS["annotations"], annotation([None, None], category_id=7)], (2,), (7,))
    assert YTVISEvaluator(register(gt, tmp_path))._tasks == ["segm"]


def test_no_predictions(tmp_path):
    evaluator = YTVISEvaluator(register(GAPS, tmp_path), output_dir=str(tmp_path))
    empty = {"scores": torch.zeros(0), "labels": torch.zeros(0), "masks": torch.zeros(0, 2, 20, 20)}
    assert evaluate(evaluator, [empty])["segm"]["AP"] == 0
    assert evaluate(evaluator, [])["segm"]["AP"] == 0
    assert json.loads((tmp_path / "results.json").read_text()) == []


@pytest.mark.parametrize(
    "video_id, change, message",
    [
        (5, {}, "video_id 5 is not in the json file"),
        (1, {"scores": [float("nan")]}, "number 0 has score nan"),
        (1, {"scores": [0.9, 0.8]}, "video 1 has 2 scores, 1 labels, 1 masks"),
        (1, {"labels": [2]}, "class 2, but the data set only has 2 classes"),
        (1, {"masks": [MASKS[:1]]}, "has 1 entries, but the video has 2 frames"),
        (1, {"masks": [MASKS[:, :10]]}, r"size \[10, 20\], but the video has .*\[20, 20\]"),
    ],
)
def test_wrong_outputs_are_named_at_once(tmp_path, video_id, change, message):
    evaluator = YTVISEvaluator(register(GAPS, tmp_path))
    evaluator.reset()
    output = {"scores": [0.9], "labels": [1], "masks": [MASKS], **change}
    with pytest.raises(ValueError, match=message):
        evaluator.process([{"video_id": video_id}], [output])


def test_wrong_number_of_outputs(tmp_path):
    evaluator = YTVISEvaluator(register(GAPS, tmp_path))
    output = {"scores": [], "labels": [], "masks": []}
    with pytest.raises(ValueError, match="1 videos have 2 outputs"):
        evaluator.process([{"video_id": 1}], [output] * 2)


def test_encoded_tracks_are_not_encoded_again(tmp_path, monkeypatch):
    def encode_nothing(*args):
        raise AssertionError("a mask is encoded")

    track = segmentations([SQUARE, SQUARE])
    track[1] = {**track[1], "counts": track[1]["counts"].encode()}
    monkeypatch.setattr("pycocotools.mask.encode", encode_nothing)
    evaluator = YTVISEvaluator(register(GAPS, tmp_path), output_dir=str(tmp_path))
    evaluated = evaluate(evaluator, [{"scores": [0.9], "labels": [1], "masks": [track]}])
    assert evaluated["segm"]["AP"] == pytest.approx(100)
    (entry,) = json.loads((tmp_path / "results.json").read_text())
    assert entry["segmentations"] == [track[0]] * 2


def test_a_video_that_is_seen_again_counts_once(tmp_path):
    evaluator = YTVISEvaluator(register(GAPS, tmp_path))
    evaluator.reset()
    for _ in range(2):
        output = {"scores": [0.9], "labels": [1], "masks": [MASKS]}
        evaluator.process([{"video_id": 1}], [output])
    assert evaluator.evaluate()["segm"]["AP"] == pytest.approx(100)
    assert sum(len(x) for x in evaluator._results.values()) == 1


def test_results_follow_the_order_of_the_videos(tmp_path):
    gt = ground_truth([annotation([SQUARE], 2)], lengths=(1, 1))
    evaluator = YTVISEvaluator(register(gt, tmp_path), output_dir=str(tmp_path))
    evaluator.reset()
    for video in (2, 1):
        output = {"scores": [video / 10], "labels": [0], "masks": [MASKS[:1]]}
        evaluator.process([{"video_id": video}], [output])
    evaluator.evaluate()
    written = json.loads((tmp_path / "results.json").read_text())
    assert [x["video_id"] for x in written] == [1, 2]


def test_tables_are_logged(tmp_path, caplog):
    caplog.set_level("INFO", logger="detectron2")
    gt = ground_truth([annotation([SQUARE] * 2, category_id=7)], categories=(3, 5, 7, 9))
    output = {"scores": [0.9], "labels": [2], "masks": [MASKS]}
    evaluate(YTVISEvaluator(register(gt, tmp_path)), [output])
    summary, note, table = (x.getMessage() for x in caplog.records[-3:])
    assert summary.startswith("Evaluation results for segm: \n") and "100.000" in summary
    assert "AP-" not in summary and note == "A number is NaN where no object is of this size."
    lines = table.splitlines()
    assert lines[0] == "Per-category segm AP: " and len(lines) == 5
    cells = [x.strip() for line in lines[3:] for x in line.strip("|").split("|")]
    assert cells[:6] == ["class 3", "nan", "class 5", "nan", "class 7", "100.000"]
    assert cells[6:] == ["class 9", "nan", "", "", "", ""]


def test_data_set_without_json_file():
    with pytest.raises(ValueError, match="'toy_no_json' has no json_file"):
        YTVISEvaluator("toy_no_json")


def test_build(tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    name = register(GAPS, tmp_path)
    evaluator = build_evaluator(cfg, name)
    assert isinstance(evaluator, YTVISEvaluator)
    evaluate(evaluator, [{"scores": [0.9], "labels": [1], "masks": [MASKS]}])
    assert (tmp_path / "inference" / name / "results.zip").exists()


def test_gathered_predictions(tmp_path, monkeypatch):
    gt = ground_truth(
        [annotation([SQUARE] * 2), annotation([ELSEWHERE] * 2, video_id=2)], lengths=(2, 2)
    )
    name, sent = register(gt, tmp_path), []
    for video_id, mask in ((2, ELSEWHERE), (1, rectangle(0, 0, 10, 5))):
        evaluator = YTVISEvaluator(name)
        evaluator.reset()
        masks = torch.tensor(np.array([mask] * 2))
        output = {"scores": [0.9], "labels": [0], "masks": [masks]}
        evaluator.process([{"video_id": video_id}], [output])
        sent.append(pickle.dumps(evaluator._results))
    monkeypatch.setattr(comm, "gather", lambda data, dst=0: [pickle.loads(x) for x in sent])
    # The exact one is found at all thresholds, the half one at 0.5.
    assert evaluator.evaluate()["segm"]["AR100"] == pytest.approx(50 + 5)

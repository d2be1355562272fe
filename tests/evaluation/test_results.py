import json

import pytest
from toy_coco import annotation, encode, evaluate, ground_truth, random_scene, rectangle, register

from msr_d2.evaluation import MaskScoringCOCOEvaluator, evaluate_coco_results


@pytest.fixture
def reference(shared_data):
    folder = shared_data / "eval_ref" / "coco"
    if not folder.is_dir():
        pytest.skip(f"no reference results at {folder}")
    return folder


@pytest.mark.parametrize("task", ["segm", "bbox"])
def test_official_numbers(reference, task):
    expected = json.loads((reference / "expected.json").read_text())
    result = evaluate_coco_results(
        reference / "instances_val2014_100.json",
        reference / f"instances_val2014_fake{task}100_results.json",
    )
    assert set(result) == {task}
    printed = expected["official_printed_numbers"][task]
    assert {k: round(result[task][k] / 100, 3) for k in printed} == printed
    exact = expected["recomputed_with_pycocotools"][task]
    for name, value in exact.items():
        assert result[task][name] / 100 == pytest.approx(value, rel=1e-14), name


@pytest.fixture
def files(tmp_path):
    """Ground truth, and the directory that an evaluator wrote; with what the evaluator said."""
    gt, predictions = random_scene(7)
    name = register(gt, tmp_path)
    evaluator = MaskScoringCOCOEvaluator(name, output_dir=str(tmp_path), eval_oracle=True)
    return tmp_path / f"{name}.json", tmp_path, evaluate(evaluator, predictions)


def test_results_file_of_the_evaluator_has_everything(files):
    gt, folder, expected = files
    result = evaluate_coco_results(gt, folder / "coco_instances_results.json", oracle=True)
    assert result.keys() == expected.keys()
    for task, metrics in expected.items():
        assert {k: result[task][k] for k in metrics} == pytest.approx(metrics, rel=0, abs=0)


def test_the_two_files_of_a_server(files):
    """What a test server computes from the uploads is what the evaluator reports."""
    gt, folder, expected = files
    boxes = evaluate_coco_results(gt, folder / "coco_instances_results.json", ["bbox"])
    masks = evaluate_coco_results(gt, folder / "coco_segm_results.json")
    assert set(boxes) == {"bbox"} and set(masks) == {"segm"}
    for result, task in ((boxes, "bbox"), (masks, "segm")):
        for name, value in expected[task].items():
            assert result[task][name] == value, name


def test_selected_images(files):
    gt, folder, _ = files
    path = folder / "coco_segm_results.json"
    chosen = evaluate_coco_results(gt, path, img_ids=[1, 2])["segm"]
    kept = [x for x in json.loads(path.read_text()) if x["image_id"] in (1, 2)]
    smaller = json.loads(gt.read_text())
    smaller["images"] = smaller["images"][:2]
    (folder / "gt.json").write_text(json.dumps(smaller))
    (folder / "kept.json").write_text(json.dumps(kept))
    expected = evaluate_coco_results(folder / "gt.json", folder / "kept.json")["segm"]
    assert chosen == pytest.approx(expected, nan_ok=True)


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_empty_results(tmp_path):
    gt = write(tmp_path / "gt.json", ground_truth([annotation(rectangle(0, 0, 5, 5))]))
    result = evaluate_coco_results(gt, write(tmp_path / "results.json", []))
    assert result["bbox"]["AP"] == result["segm"]["AP"] == 0


def test_limit_is_in_the_name(tmp_path):
    gt = write(tmp_path / "gt.json", ground_truth([annotation(rectangle(0, 0, 5, 5))]))
    path = write(tmp_path / "results.json", [])
    assert "AR300" in evaluate_coco_results(gt, path, max_dets_per_image=300)["bbox"]


def test_wrong_files_are_named(tmp_path):
    gt = ground_truth([annotation(rectangle(0, 0, 5, 5))])
    gt_path = write(tmp_path / "gt.json", gt)
    with pytest.raises(ValueError, match=r"gt.json holds a dict, not a list of results"):
        evaluate_coco_results(gt_path, gt_path)
    result = {"image_id": 1, "category_id": 1, "segmentation": encode(rectangle(0, 0, 5, 5))}
    with pytest.raises(ValueError, match=r"entry 0 of .*results.json has no 'score'"):
        evaluate_coco_results(gt_path, write(tmp_path / "results.json", [result]))
    del gt["annotations"]
    with pytest.raises(ValueError, match=r"withheld.json has no annotations"):
        evaluate_coco_results(
            write(tmp_path / "withheld.json", gt), write(tmp_path / "results.json", [])
        )

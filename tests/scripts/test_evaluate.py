"""The numbers of result files of videos by the command; images are in tests/engine."""

import importlib.util
import json
import sys

import pytest
from toy_ytvis import SQUARE, annotation, ground_truth, result

from msr_d2.evaluation import evaluate_ytvis_results


@pytest.fixture(scope="module")
def script(repository):
    path = repository / "scripts" / "evaluate.py"
    spec = importlib.util.spec_from_file_location("evaluate_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script, monkeypatch):
    def run_script(*words):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, words)])
        return script.main()

    return run_script


@pytest.fixture
def files(tmp_path):
    """Ground truth and results that are perfect."""
    gt = ground_truth([annotation([SQUARE, None], bboxes=[[0, 0, 10, 10], None])])
    gt["videos"][0]["file_names"] = ["0.jpg", "1.jpg"]
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "results.json").write_text(json.dumps([result([SQUARE, None], 0.5)]))
    return tmp_path / "gt.json", tmp_path / "results.json"


def test_reference_results_of_videos(run, shared_data, tmp_path, capsys):
    folder, numbers = shared_data / "eval_ref" / "ytvis", tmp_path / "numbers.json"
    if not folder.is_dir():
        pytest.skip(f"no reference results at {folder}")
    gt, results = folder / "gt.json", folder / "results.json"
    assert run("--gt", gt, "--results", results, "--output", numbers) == 0
    official = json.loads((folder / "expected.json").read_text())["official"]
    evaluated = json.loads(numbers.read_text())[str(results)]
    for task, name in (("segm", "mask"), ("bbox", "bbox")):
        expected = 100 * official[f"video_{name}_mAP_50_95"]
        assert evaluated[task]["AP"] == pytest.approx(expected, rel=1e-14)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:]}
    assert rows["segm"] == ["34.19", "56.65", "37.06", "34.19", "nan", "nan", "18.21", "37.50"]
    assert rows["bbox"] == ["25.93", "51.27", "27.25", "25.93", "nan", "nan", "12.14", "30.36"]


def test_options_for_videos(run, files, tmp_path, capsys):
    words = ["--gt", files[0], "--results", files[1], "--output", tmp_path / "numbers.json"]
    assert run(*words, "--tasks", "bbox", "--max-dets", 30, "--per-class") == 0
    (evaluated,) = json.loads((tmp_path / "numbers.json").read_text()).values()
    assert set(evaluated) == {"bbox"} and evaluated["bbox"]["AR30"] == pytest.approx(100)
    assert evaluated["bbox"] == pytest.approx(
        evaluate_ytvis_results(*files, ["bbox"], max_dets_per_video=30)["bbox"], nan_ok=True
    )
    assert "bbox/AP-class 1: 100.00" in capsys.readouterr().out


def test_boxes_are_evaluated_where_there_are_no_masks(run, files, capsys):
    gt = json.loads(files[0].read_text())
    del gt["annotations"][0]["segmentations"]
    files[0].write_text(json.dumps(gt))
    assert run("--gt", files[0], "--results", files[1]) == 0
    output = capsys.readouterr().out
    assert "bbox" in output and "segm" not in output


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda gt, results: (gt, results, "--oracle"), "--oracle is for images"),
        (lambda gt, results: (gt.parent / "none.json", results), "none.json"),
        (lambda gt, results: (gt, results.parent / "none.json"), "none.json"),
        (lambda gt, results: (gt, gt), "holds a dict, not a list of results"),
        (lambda gt, results: (results, results), "results.json"),
    ],
)
def test_what_is_refused(run, files, change, message, capsys):
    gt, results, *more = change(*files)
    assert run("--gt", gt, "--results", results, *more) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("evaluate: ") and message in captured.err
    assert captured.out == ""


def test_empty_annotations_of_videos_are_withheld(run, files, capsys):
    gt = json.loads(files[0].read_text())
    files[0].write_text(json.dumps({**gt, "annotations": []}))
    assert run("--gt", files[0], "--results", files[1]) == 2
    assert "only the evaluation server" in capsys.readouterr().err

import pytest
from detectron2.data import MetadataCatalog
from toy_coco import annotation, evaluate, ground_truth, rectangle, register, scored_instances

from msr_d2 import get_cfg
from msr_d2.evaluation import MaskScoringCOCOEvaluator, build, build_evaluator, register_evaluator


@pytest.fixture
def dataset(tmp_path):
    return register(ground_truth([annotation(rectangle(0, 0, 10, 10))]), tmp_path)


def test_coco(dataset, tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.TEST.EVAL_ORACLE = True
    evaluator = build_evaluator(cfg, dataset)
    assert isinstance(evaluator, MaskScoringCOCOEvaluator)
    result = evaluate(evaluator, [scored_instances([rectangle(0, 0, 10, 10)], [0.9], [0.9])])
    assert result["segm_oracle"]["AP"] == pytest.approx(100)
    folder = tmp_path / "inference" / dataset
    assert (folder / "coco_segm_results.json").exists()


def test_output_dir(dataset, tmp_path):
    evaluator = build_evaluator(get_cfg(), dataset, str(tmp_path / "here"))
    evaluate(evaluator, [scored_instances([], [], [])])
    assert (tmp_path / "here" / "coco_segm_results.json").exists()


@pytest.mark.parametrize("allowed, counted", [(100, 100), (300, 300), (50, 100), (-1, 100_000)])
def test_limit_follows_the_model(dataset, allowed, counted):
    cfg = get_cfg()
    cfg.TEST.DETECTIONS_PER_IMAGE = allowed
    assert build_evaluator(cfg, dataset)._max_dets_per_image == [1, 10, counted]


def test_more_than_a_hundred_objects_are_counted(tmp_path):
    pixels = [rectangle(x, y, x + 1, y + 1) for x in range(20) for y in range(6)]
    name = register(ground_truth([annotation(m) for m in pixels]), tmp_path)
    cfg = get_cfg()
    cfg.TEST.DETECTIONS_PER_IMAGE = 200
    prediction = scored_instances(pixels, [0.5] * 120, [1.0] * 120)
    result = evaluate(build_evaluator(cfg, name, str(tmp_path)), [prediction])
    assert result["bbox"]["AP"] == result["segm"]["AP"] == pytest.approx(100)
    cfg.TEST.DETECTIONS_PER_IMAGE = 100
    result = evaluate(build_evaluator(cfg, name, str(tmp_path)), [prediction])
    # Only 100 of 120 are looked at: the recalls 0, 0.01 ... 0.83 are reached.
    assert result["segm"]["AP"] == pytest.approx(100 * 84 / 101)


def test_unknown_type():
    MetadataCatalog.get("toy_unknown_type").evaluator_type = "no_such_type"
    with pytest.raises(ValueError, match=r"'no_such_type', known are \[.*'coco'"):
        build_evaluator(get_cfg(), "toy_unknown_type")
    with pytest.raises(ValueError, match="'toy_never_registered' has evaluator_type None"):
        build_evaluator(get_cfg(), "toy_never_registered")


def test_register(monkeypatch):
    monkeypatch.setattr(build, "_BUILDERS", dict(build._BUILDERS))
    register_evaluator("toy_type", lambda cfg, name, output_dir: (name, output_dir))
    MetadataCatalog.get("toy_own_type").evaluator_type = "toy_type"
    assert build_evaluator(get_cfg(), "toy_own_type", "there") == ("toy_own_type", "there")

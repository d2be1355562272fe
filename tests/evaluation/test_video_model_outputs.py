"""What MaskFreeVIS returns, for images and for videos, goes into the evaluators as it is."""

import pycocotools.mask as mask_util
import pytest
import torch
import toy_coco
import toy_ytvis
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model

from msr_d2.evaluation import build_evaluator
from msr_d2.testing import tiny_clips, tiny_images, tiny_vis_cfg

SIZE = (64, 96)


@pytest.fixture(scope="module")
def cfg():
    return tiny_vis_cfg()


@pytest.fixture(scope="module")
def model(cfg):
    torch.manual_seed(0)
    return build_model(cfg).eval()


@torch.no_grad()
def predict(model, items):
    without_truth = [{k: v for k, v in x.items() if k != "instances"} for x in items]
    return model(without_truth)


def evaluate(evaluator, items, outputs):
    evaluator.reset()
    evaluator.process(items, outputs)
    return evaluator.evaluate()


def largest(instances):
    """Mask and class of the largest predicted mask."""
    i = int(instances.pred_masks.flatten(1).sum(1).argmax())
    return instances.pred_masks[i].numpy(), int(instances.pred_classes[i])


def image_data(outputs, items, folder):
    """A data set whose truth is one of the predictions for each image; its classes have gaps."""
    found = [largest(x["instances"]) for x in outputs]
    annotations = [
        toy_coco.annotation(mask, item["image_id"], 10 * label + 1)
        for (mask, label), item in zip(found, items)
    ]
    gt = toy_coco.ground_truth(annotations, 0, categories=(1, 11, 21))
    gt["images"] = [{"id": x["image_id"], "height": SIZE[0], "width": SIZE[1]} for x in items]
    return toy_coco.register(gt, folder)


def test_images_have_no_mask_scores_and_are_evaluated_as_by_detectron2(cfg, model, tmp_path):
    items = tiny_images()
    outputs = predict(model, items)
    assert not any(x["instances"].has("mask_scores") for x in outputs)
    name = image_data(outputs, items, tmp_path)
    ours = evaluate(build_evaluator(cfg, name, str(tmp_path / "ours")), items, outputs)
    stock = evaluate(COCOEvaluator(name, output_dir=str(tmp_path / "stock")), items, outputs)
    assert set(ours) == {"bbox", "segm"}
    for task, values in stock.items():
        assert ours[task] == pytest.approx(values, rel=0, abs=0, nan_ok=True)
    assert ours["segm"]["AP"] > 0 and "AP-class 11" in ours["segm"]
    written, expected = (tmp_path / x / "coco_instances_results.json" for x in ("ours", "stock"))
    assert written.read_text() == expected.read_text() and "mask_score" not in written.read_text()
    assert not (tmp_path / "ours" / "coco_segm_results.json").exists()


def test_images_in_which_nothing_is_found(cfg, model, tmp_path):
    items = tiny_images()
    outputs = predict(model, items)
    name = image_data(outputs, items, tmp_path)
    nothing = [{"instances": x["instances"][:0]} for x in outputs]
    evaluated = evaluate(build_evaluator(cfg, name, str(tmp_path)), items, nothing)
    assert evaluated["bbox"]["AP"] == evaluated["segm"]["AP"] == 0
    # One empty image beside one that is not.
    some = evaluate(build_evaluator(cfg, name, str(tmp_path)), items, [outputs[0], nothing[1]])
    assert set(some) == {"bbox", "segm"} and some["segm"]["AP"] > 0


def test_videos(cfg, model, tmp_path):
    items = tiny_clips()
    outputs = predict(model, items)
    annotations = []
    for item, output in zip(items, outputs):
        visible = [sum(mask_util.area(x) for x in track if x) for track in output["masks"]]
        best = visible.index(max(visible))
        masks = [None if x is None else mask_util.decode(x) > 0 for x in output["masks"][best]]
        category = 10 * int(output["labels"][best]) + 1
        annotations.append(toy_ytvis.annotation(masks, item["video_id"], category))
    gt = toy_ytvis.ground_truth(annotations, [], categories=(1, 11, 21), size=SIZE)
    gt["videos"] = [
        {"id": x["video_id"], "length": 3, "height": SIZE[0], "width": SIZE[1]} for x in items
    ]
    name = toy_ytvis.register(gt, tmp_path)
    evaluated = evaluate(build_evaluator(cfg, name, str(tmp_path)), items, outputs)
    assert evaluated["segm"]["AR100"] == 100 and evaluated["segm"]["AP"] > 0


def test_an_image_output_is_no_track(cfg, model, tmp_path):
    name = toy_ytvis.register(toy_ytvis.ground_truth([]), tmp_path)
    output = predict(model, tiny_images(num_images=1))
    with pytest.raises(ValueError, match=r"video 1 has no 'scores', only \['instances'\]"):
        build_evaluator(cfg, name, str(tmp_path)).process([{"video_id": 1}], output)

"""Toy data in COCO format for the tests of evaluators: shapes that one can count by hand."""

import contextlib
import io
import json
import uuid

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO

SIZE = (20, 20)


def rectangle(x0, y0, x1, y1, size=SIZE):
    """Bool mask (H, W) that is set in columns x0..x1-1 and rows y0..y1-1."""
    mask = np.zeros(size, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def encode(mask):
    rle = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def annotation(mask, image_id=1, category_id=1, iscrowd=0):
    rle = encode(mask)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": rle,
        "bbox": mask_util.toBbox(rle).tolist(),
        "area": int(mask.sum()),
        "iscrowd": iscrowd,
    }


def ground_truth(annotations, num_images=1, categories=(1,), size=SIZE):
    """A COCO dict; annotation ids are 1, 2, ... in the order given."""
    return {
        "images": [{"id": i + 1, "height": size[0], "width": size[1]} for i in range(num_images)],
        "categories": [{"id": i, "name": f"class {i}"} for i in categories],
        "annotations": [{**x, "id": i + 1} for i, x in enumerate(annotations)],
    }


def to_coco(gt):
    """The COCO object of a dict."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = gt
        coco.createIndex()
    return coco


def register(gt, folder):
    """Write a COCO dict and register it; returns the name of the data set."""
    name = f"toy_{uuid.uuid4().hex}"
    path = folder / f"{name}.json"
    path.write_text(json.dumps(gt))
    MetadataCatalog.get(name).set(
        json_file=str(path),
        evaluator_type="coco",
        thing_classes=[x["name"] for x in gt["categories"]],
        thing_dataset_id_to_contiguous_id={x["id"]: i for i, x in enumerate(gt["categories"])},
    )
    return name


def instances(masks, scores, classes=None, boxes=None, **fields):
    """Predictions for one image; the boxes are those of the masks unless they are given.

    Args:
        masks: list of (H, W) bool arrays; one at least, or an empty list for a `SIZE` image.
        fields: further fields, such as mask_iou=[...].
    """
    size = masks[0].shape if masks else SIZE
    if boxes is None:
        boxes = [_box(m) for m in masks]
    result = Instances(size)
    result.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    result.pred_masks = torch.tensor(np.array(masks, dtype=bool)).reshape(-1, *size)
    result.scores = torch.tensor(scores, dtype=torch.float64)
    result.pred_classes = torch.tensor(classes or [0] * len(masks), dtype=torch.int64)
    for name, value in fields.items():
        result.set(name, torch.tensor(value, dtype=torch.float64))
    return result


def scored_instances(masks, scores, mask_iou, **kwargs):
    """Predictions with a MaskIoU and the product of both scores, as our models return them."""
    mask_scores = [s * u for s, u in zip(scores, mask_iou)]
    return instances(masks, scores, mask_iou=mask_iou, mask_scores=mask_scores, **kwargs)


def evaluate(evaluator, predictions):
    """Run an evaluator over a list of predictions, of the images with ids 1, 2, ..."""
    evaluator.reset()
    for i, prediction in enumerate(predictions):
        evaluator.process([{"image_id": i + 1}], [{"instances": prediction}])
    return evaluator.evaluate()


def random_scene(seed, num_images=10, categories=(1, 3, 17), size=(160, 160), num_detections=12):
    """Ground truth with crowd regions in every area range, and noisy predictions with ties.

    Returns:
        a COCO dict, and for each image instances with `mask_iou` and `mask_scores`.
    """
    rng = np.random.default_rng(seed)
    annotations, predictions = [], []
    for image_id in range(1, num_images + 1):
        boxes = [_random_box(rng, size) for _ in range(rng.integers(1, 7))]
        labels = rng.integers(0, len(categories), len(boxes))
        for box, label in zip(boxes, labels):
            crowd = int(rng.random() < 0.15)
            mask = rectangle(*box, size=size)
            annotations.append(annotation(mask, image_id, categories[label], crowd))
        masks, classes = [], []
        for _ in range(num_detections if image_id < num_images else 0):
            k = rng.integers(len(boxes))
            shift = rng.integers(-6, 7, 4) * (rng.random() < 0.7)
            box = np.clip(np.array(boxes[k]) + shift, 0, max(size))
            box[2:] = np.maximum(box[2:], box[:2] + 1)
            masks.append(rectangle(*box, size=size))
            classes.append(int(labels[k] if rng.random() < 0.8 else rng.integers(len(categories))))
        # One decimal: many equal scores, whose order the evaluators must agree on.
        scores = rng.random(len(masks)).round(1).tolist()
        mask_iou = rng.random(len(masks)).round(1).tolist()
        predictions.append(scored_instances(masks, scores, mask_iou, classes=classes))
    return ground_truth(annotations, num_images, categories, size), predictions


def _box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return [0.0, 0.0, 0.0, 0.0]
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def _random_box(rng, size):
    side = rng.choice([10, 40, 110], 2) + rng.integers(0, 20, 2)
    x0, y0 = rng.integers(0, size[1] - side[0]), rng.integers(0, size[0] - side[1])
    return int(x0), int(y0), int(x0 + side[0]), int(y0 + side[1])

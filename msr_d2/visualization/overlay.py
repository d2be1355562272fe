"""Pictures of detections that tell the three numbers of Mask Scoring R-CNN apart.

A label reads ``circle 0.93 | IoU 0.81 | mask 0.75``: class and class score, predicted MaskIoU, and
the mask score, which is what ranks the masks (arXiv 1903.00241, Sec. 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.structures import Instances

from .canvas import Drawable, draw_objects, to_rgb
from .masks import prediction_masks, read_ground_truth
from .style import class_color

SCORE_FIELDS = ("mask_scores", "scores")
_SCORE_NAMES = {"mask_scores": "mask score", "scores": "class score"}


def draw_instances(
    image_rgb: np.ndarray,
    instances: Instances,
    class_names: Sequence[str] | None = None,
    *,
    score_threshold: float = 0.4,
    threshold_on: str = "mask_scores",
    true_iou: np.ndarray | None = None,
    alpha: float = 0.45,
    draw_boxes: bool = True,
    legend: bool = True,
) -> np.ndarray:
    """Draw the detections of one image: masks, boxes and labels with all their scores.

    Small pictures are enlarged by a whole factor, so that labels stay readable. Labels stay inside
    the picture and do not cover each other while there is room.

    Args:
        image_rgb: (H, W, 3) RGB, or gray (H, W), values in [0, 255].
        instances: N detections at the size of the picture, with `pred_boxes`, `pred_classes`,
            `scores`; `pred_masks`, `mask_iou` and `mask_scores` are drawn where they exist.
        class_names: name of each contiguous class index; a class without one is "class <index>".
        score_threshold: detections below it are left out.
        threshold_on: the score that is compared with it, "mask_scores" or "scores" (the class
            score). Without the field `mask_scores` (plain Mask R-CNN) it is the class score.
        true_iou: (N,) true MaskIoU, written beside the predicted one where it is known.
        alpha: opacity of the masks in [0, 1].
        draw_boxes: whether to draw the boxes.
        legend: append lines that explain the numbers and name the threshold.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: a picture, mask, threshold or `true_iou` that does not fit.
    """
    image = to_rgb(image_rgb)
    field, chosen = select_instances(instances, score_threshold, threshold_on)
    if true_iou is not None and len(true_iou) != len(instances):
        raise ValueError(f"true_iou has {len(true_iou)} values for {len(instances)} detections")
    masks = prediction_masks(instances, image.shape[:2])
    boxes = instances.pred_boxes.tensor.detach().cpu().numpy()
    objects = [
        Drawable(
            box=boxes[index].astype(float),
            mask=None if masks is None else masks[index],
            color=class_color(int(instances.pred_classes[index])),
            text=_score_text(instances, index, class_names, true_iou),
        )
        for index in chosen
    ]
    lines = []
    if legend:
        count = f" ({len(chosen)} of {len(instances)})"
        lines = legend_lines(instances, field, score_threshold, has_true_iou=true_iou is not None)
        lines[-1] += count
    return draw_objects(image, objects, lines, alpha=alpha, draw_boxes=draw_boxes)


def draw_ground_truth(
    image_rgb: np.ndarray,
    ground_truth: Instances | Sequence[dict[str, Any]],
    class_names: Sequence[str] | None = None,
    *,
    alpha: float = 0.45,
    draw_boxes: bool = True,
) -> np.ndarray:
    """Draw the annotated objects of one image, in the colours of :func:`draw_instances`.

    Args:
        image_rgb: see :func:`draw_instances`.
        ground_truth: `Instances` with `gt_boxes`, `gt_classes` and perhaps `gt_masks`, or the list
            `annotations` of a detectron2 dataset dict, both in pixels of the picture.
        class_names: name of each contiguous class index.
        alpha: opacity of the masks in [0, 1].
        draw_boxes: whether to draw the boxes.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    image = to_rgb(image_rgb)
    truth = read_ground_truth(ground_truth, image.shape[:2])
    objects = [
        Drawable(
            box=truth.boxes[index],
            mask=None if truth.masks is None else truth.masks[index],
            color=class_color(int(class_index)),
            text=[class_name(class_names, class_index) + " (crowd)" * bool(truth.crowd[index])],
        )
        for index, class_index in enumerate(truth.classes)
    ]
    return draw_objects(image, objects, [], alpha=alpha, draw_boxes=draw_boxes)


def select_instances(
    instances: Instances, score_threshold: float, threshold_on: str = "mask_scores"
) -> tuple[str, np.ndarray]:
    """The field a threshold applies to, and the detections that reach it, the best first.

    Args:
        instances: N detections.
        score_threshold: lowest score that is kept; NaN scores never are.
        threshold_on: "mask_scores" (the class score where that field is missing) or "scores".

    Returns:
        The name of the field that was used, and an int array with the indices of the detections.

    Raises:
        ValueError: `threshold_on` is neither.
    """
    if threshold_on not in SCORE_FIELDS:
        raise ValueError(f"threshold_on is {threshold_on!r}: use one of {SCORE_FIELDS}")
    has_mask_scores = instances.has("mask_scores")
    field = threshold_on if threshold_on == "scores" or has_mask_scores else "scores"
    scores = class_scores(instances) if field == "scores" else _to_numpy(instances.mask_scores)
    order = np.argsort(-scores, kind="stable")
    return field, order[scores[order] >= score_threshold]


def class_scores(instances: Instances) -> np.ndarray:
    """(N,) class scores, also where `scores` was overwritten by the mask score.

    With `MODEL.ROI_MASKIOU_HEAD.OVERWRITE_SCORES` the class score lives in `class_scores`.
    """
    return _to_numpy(instances.get("class_scores" if instances.has("class_scores") else "scores"))


def class_name(class_names: Sequence[str] | None, index: int) -> str:
    """The name of a class, or "class <index>" where there is none."""
    if class_names is None or not 0 <= index < len(class_names):
        return f"class {index}"
    return str(class_names[index])


def legend_lines(
    instances: Instances, field: str, score_threshold: float, *, has_true_iou: bool = False
) -> list[str]:
    """What the numbers of a label mean, in their order, and which detections are shown.

    Args:
        instances: detections, of which only the fields and the scores matter.
        field: the field that the threshold is compared with.
        score_threshold: lowest score that is drawn.
        has_true_iou: whether the labels tell the true MaskIoU.
    """
    lines = ["first number: class score"]
    truth = "true: IoU with the best object of that class"
    if instances.has("mask_iou"):
        lines.append("IoU: predicted MaskIoU" + f" ({truth})" * has_true_iou)
    elif has_true_iou:
        lines.append(truth)
    if instances.has("mask_scores"):
        lines.append("mask: mask score" + " = class score × IoU" * _is_product(instances))
    return [*lines, f"shown: {_SCORE_NAMES[field]} ≥ {score_threshold:g}"]


def _score_text(
    instances: Instances, index: int, names: Sequence[str] | None, true_iou: np.ndarray | None
) -> list[str]:
    """Pieces of the label of one detection, such as ["circle 0.93", "IoU 0.81", "mask 0.75"]."""
    name = class_name(names, int(instances.pred_classes[index]))
    text = [f"{name} {_number(class_scores(instances)[index])}"]
    truth = "" if true_iou is None else f"true {_number(true_iou[index])}"
    if instances.has("mask_iou"):
        predicted = f"IoU {_number(instances.mask_iou[index])}"
        text.append(f"{predicted} ({truth})" if truth else predicted)
    elif truth:
        text.append(f"IoU {truth}")
    if instances.has("mask_scores"):
        text.append(f"mask {_number(instances.mask_scores[index])}")
    return text


def _is_product(instances: Instances) -> bool:
    """Whether the mask scores are the product (MODEL.ROI_MASKIOU_HEAD.SCORE), not the IoU alone."""
    if not instances.has("mask_iou"):
        return False
    product = class_scores(instances) * _to_numpy(instances.mask_iou)
    return np.allclose(product, _to_numpy(instances.mask_scores), atol=1e-3)


def _number(value: float) -> str:
    return f"{round(float(value), 2) + 0.0:.2f}"  # + 0.0 turns -0.0 into 0.0


def _to_numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().float().numpy()

"""Detections by Soft-NMS, and mask scores from MaskIoU (arXiv 1903.00241, Sec. 3.2 and 4.1)."""

from __future__ import annotations

import torch
from detectron2.structures import Boxes, Instances

from ..layers import soft_nms

SCORE_MODES = ("product", "maskiou")


def combine_scores(
    class_scores: torch.Tensor, mask_iou: torch.Tensor, mode: str = "product"
) -> torch.Tensor:
    """The mask score of each detection, (N,): class score times predicted MaskIoU.

    Args:
        class_scores: (N,) probabilities.
        mask_iou: (N,) predicted MaskIoU of the predicted class, not limited to [0, 1].
        mode: "product", or "maskiou" for the predicted MaskIoU alone.
    """
    if mode not in SCORE_MODES:
        raise ValueError(f"MODEL.ROI_MASKIOU_HEAD.SCORE is {mode!r}: use one of {SCORE_MODES}")
    return class_scores * mask_iou if mode == "product" else mask_iou


def add_mask_scores(
    instances: list[Instances],
    mask_iou: torch.Tensor,
    mode: str = "product",
    overwrite_scores: bool = False,
) -> None:
    """Add the fields `mask_iou` and `mask_scores` to the detections of each image, in place.

    Args:
        instances: detections of each image; without the field `scores` (given boxes that nobody
            classified) only `mask_iou` is added.
        mask_iou: (N,) predicted MaskIoU, the images one after the other.
        mode: see :func:`combine_scores`.
        overwrite_scores: put the mask score into `scores` as well, and the class score into
            `class_scores`: for evaluators that know only one score.
    """
    for image, image_iou in zip(instances, mask_iou.float().split([len(x) for x in instances])):
        image.mask_iou = image_iou
        if not image.has("scores"):
            continue
        # A second pass over the same detections must not multiply a second time.
        class_scores = image.class_scores if image.has("class_scores") else image.scores
        image.mask_scores = combine_scores(class_scores, image_iou, mode)
        if overwrite_scores:
            image.class_scores, image.scores = class_scores, image.mask_scores


def soft_nms_inference(
    boxes: list[torch.Tensor],
    probabilities: list[torch.Tensor],
    image_sizes: list[tuple[int, int]],
    options: dict,
) -> list[Instances]:
    """Detections of each image by Soft-NMS; the counterpart of detectron2's fast_rcnn_inference.

    Args:
        boxes: per image (R, K*4), or (R, 4) with class-agnostic regression.
        probabilities: per image (R, K+1), background last.
        image_sizes: per image (height, width).
        options: keyword arguments of :func:`msr_d2.layers.soft_nms`.
    """
    return [_soft_nms_image(*args, options) for args in zip(boxes, probabilities, image_sizes)]


def _soft_nms_image(boxes, probabilities, image_size, options: dict) -> Instances:
    finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(probabilities).all(dim=1)
    boxes, scores = boxes[finite], probabilities[finite][:, :-1]
    clipped = Boxes(boxes.reshape(-1, 4))
    clipped.clip(image_size)
    boxes = clipped.tensor.view(-1, boxes.shape[1] // 4, 4).expand(-1, scores.shape[1], 4)
    candidate = scores > options["score_threshold"]
    classes = candidate.nonzero()[:, 1]
    boxes, scores = boxes[candidate], scores[candidate]
    kept, kept_scores = soft_nms(boxes, scores, classes, **options)
    return Instances(
        image_size, pred_boxes=Boxes(boxes[kept]), scores=kept_scores, pred_classes=classes[kept]
    )

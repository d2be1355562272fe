"""Masks of predictions and of ground truth, in one form: boolean arrays of the image's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import BitMasks, BoxMode, Instances, PolygonMasks


@dataclass
class GroundTruth:
    """Objects of one image.

    Attributes:
        boxes: (G, 4) float array, (x0, y0, x1, y1) in pixels of the image.
        classes: (G,) int array of contiguous class indices.
        masks: G boolean arrays (H, W), or None where the data has no masks.
        crowd: (G,) bool array.
    """

    boxes: np.ndarray
    classes: np.ndarray
    masks: list[np.ndarray] | None
    crowd: np.ndarray


def prediction_masks(instances: Instances, image_size: tuple[int, int]) -> list | None:
    """The masks of detections as N boolean arrays (H, W), or None without the field `pred_masks`.

    Args:
        instances: detections, as a detectron2 model returns them at inference.
        image_size: (H, W) of the picture they belong to.

    Raises:
        ValueError: masks of another size, for example the soft 28x28 masks of a mask head.
    """
    if not instances.has("pred_masks"):
        return None
    return _bitmaps(instances.pred_masks, image_size, "pred_masks")


def read_ground_truth(
    source: Instances | Sequence[dict[str, Any]], image_size: tuple[int, int]
) -> GroundTruth:
    """Objects of one image from `Instances` (`gt_*`) or from the annotations of a dataset dict.

    Args:
        source: `Instances` in pixels of the picture, or detectron2 annotations (`bbox`,
            `bbox_mode`, contiguous `category_id`, `segmentation` as polygons or RLE).
        image_size: (H, W) of the picture.

    Raises:
        ValueError: a mask whose size is not the picture's.
    """
    if not isinstance(source, Instances):
        return _from_annotations(list(source), image_size)
    masks = source.gt_masks if source.has("gt_masks") else None
    return GroundTruth(
        boxes=_to_numpy(source.gt_boxes.tensor).reshape(-1, 4).astype(float),
        classes=_to_numpy(source.gt_classes).astype(int),
        masks=None if masks is None else _bitmaps(masks, image_size, "gt_masks"),
        crowd=np.zeros(len(source), dtype=bool),
    )


def true_mask_iou(
    instances: Instances,
    ground_truth: Instances | Sequence[dict[str, Any]],
    image_size: tuple[int, int],
) -> np.ndarray:
    """For each detection, the IoU of its mask with the best object of the same class.

    Args:
        instances: N detections with `pred_masks` (N, H, W) and `pred_classes` (N,).
        ground_truth: see :func:`read_ground_truth`; crowd objects are left out.
        image_size: (H, W).

    Returns:
        (N,) float array in [0, 1]; 0 where the image has no object of that class.

    Raises:
        ValueError: detections or ground truth without masks.
    """
    truth = read_ground_truth(ground_truth, image_size)
    predicted = prediction_masks(instances, image_size)
    if predicted is None or truth.masks is None:
        side = "detections" if predicted is None else "ground truth"
        raise ValueError(f"the {side} have no masks, so there is no MaskIoU")
    candidates = np.flatnonzero(~truth.crowd)
    if len(predicted) == 0 or len(candidates) == 0:
        return np.zeros(len(predicted))
    overlaps = mask_util.iou(
        [_encode(mask) for mask in predicted],
        [_encode(truth.masks[index]) for index in candidates],
        [0] * len(candidates),
    )
    classes = _to_numpy(instances.pred_classes)
    same_class = classes[:, None] == truth.classes[candidates][None, :]
    return np.where(same_class, overlaps, 0.0).max(axis=1)


def _from_annotations(annotations: list[dict], image_size: tuple[int, int]) -> GroundTruth:
    boxes = [
        BoxMode.convert(list(x["bbox"]), x.get("bbox_mode", BoxMode.XYWH_ABS), BoxMode.XYXY_ABS)
        for x in annotations
    ]
    has_masks = all("segmentation" in x for x in annotations)
    masks = [_segmentation_mask(x["segmentation"], image_size) for x in annotations if has_masks]
    return GroundTruth(
        boxes=np.array(boxes, dtype=float).reshape(-1, 4),
        classes=np.array([x["category_id"] for x in annotations], dtype=int),
        masks=masks if has_masks else None,
        crowd=np.array([bool(x.get("iscrowd", 0)) for x in annotations], dtype=bool),
    )


def _segmentation_mask(segmentation: Any, image_size: tuple[int, int]) -> np.ndarray:
    """One COCO segmentation (polygons, RLE with string or list counts, or an array) as (H, W)."""
    height, width = image_size
    if isinstance(segmentation, np.ndarray):
        return _checked(segmentation, image_size, "segmentation")
    if isinstance(segmentation, dict):
        rle = segmentation
        if isinstance(rle["counts"], list):
            rle = mask_util.frPyObjects(rle, *rle["size"])
        return _checked(mask_util.decode(rle), image_size, "segmentation")
    polygons = [np.asarray(x, dtype=float).tolist() for x in segmentation if len(x) >= 6]
    if not polygons:
        return np.zeros(image_size, dtype=bool)
    rles = mask_util.frPyObjects(polygons, height, width)
    return mask_util.decode(mask_util.merge(rles)).astype(bool)


def _bitmaps(masks: Any, image_size: tuple[int, int], field: str) -> list[np.ndarray]:
    if isinstance(masks, PolygonMasks):
        return [_segmentation_mask(polygons, image_size) for polygons in masks.polygons]
    if isinstance(masks, BitMasks):
        masks = masks.tensor
    return [_checked(mask, image_size, field) for mask in _to_numpy(masks)]


def _checked(mask: np.ndarray, image_size: tuple[int, int], field: str) -> np.ndarray:
    if tuple(mask.shape) != tuple(image_size):
        raise ValueError(
            f"{field} has masks of shape {tuple(mask.shape)}, but the picture is "
            f"{tuple(image_size)} (height, width): pass the picture and the masks at one size"
        )
    mask = np.asarray(mask)
    return mask if mask.dtype == bool else mask > 0.5


def _encode(mask: np.ndarray) -> dict:
    return mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))


def _to_numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)

"""Ground truth of a clip: one row per object, the same row in all frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, polygons_to_bitmask
from fvcore.transforms.transform import Transform, TransformList

from .color import ColorTransform

ABSENT = -1

# After these a box that is tight around a mask is still tight.
_AXIS_ALIGNED = (
    T.ResizeTransform,
    T.HFlipTransform,
    T.VFlipTransform,
    T.NoOpTransform,
    T.BlendTransform,
    ColorTransform,
)
_MIN_SIDE = 1e-5  # pixels; as detectron2 filters boxes


def clip_instances(
    annotations: Sequence[list[dict]],
    transforms: Sequence[TransformList],
    size: tuple[int, int],
    with_masks: bool,
) -> list[Instances]:
    """Transform the annotations of a clip; objects that are absent in a frame keep their row.

    Boxes come from the annotated boxes: exactly under resizing and flips. Rotation and crop leave
    no tight box of them; the result is then the box around the transformed corners, cut off at the
    image, and with masks the tight box of the transformed mask instead. An object without any area
    left in a frame is absent there, and one that is absent in all frames has no row. Neither has
    one that is ``ignored`` in a frame: it may be visible there, so it is not trained as absent.

    Args:
        annotations: for each of the T frames a list of dicts with ``id``, ``category_id``,
            ``bbox``, ``bbox_mode`` and with masks ``segmentation`` (polygons or compressed RLE),
            or ``id`` and ``ignored`` True; no crowd regions.
        transforms: for each frame.
        size: height and width of the frames after the transforms, in pixels.
        with_masks: give ``gt_masks``; without, ``segmentation`` is not even looked at.

    Returns:
        for each frame ``Instances`` with N rows sorted by id: ``gt_boxes`` (zeros where absent),
        ``gt_classes`` (also where absent), ``gt_ids`` (-1 where absent) and ``gt_masks``.
    """
    ignored = {x["id"] for frame in annotations for x in frame if x.get("ignored")}
    annotations = [[x for x in frame if x["id"] not in ignored] for frame in annotations]
    classes = {x["id"]: x["category_id"] for frame in annotations for x in frame}
    ids = sorted(classes)
    rows = {number: row for row, number in enumerate(ids)}
    boxes = np.zeros((len(annotations), len(ids), 4))
    masks = np.zeros((*boxes.shape[:2], *size), dtype=bool) if with_masks else None
    for t, (frame, transform) in enumerate(zip(annotations, transforms)):
        if not frame:
            continue
        index = [rows[x["id"]] for x in frame]
        boxes[t, index] = _transform_boxes(frame, transform, size)
        if masks is not None:
            masks[t, index] = [_transform_mask(x["segmentation"], transform, size) for x in frame]
            _fit_boxes(boxes[t], masks[t], transform)
    present = (boxes[..., 2:] - boxes[..., :2] > _MIN_SIDE).all(-1)
    kept = present.any(0)
    numbers, labels = np.array(ids, dtype=np.int64), np.array([classes[x] for x in ids], np.int64)
    numbers = np.where(present, numbers, ABSENT)
    boxes[~present] = 0
    return [
        _to_instances(
            size,
            boxes[t, kept],
            labels[kept],
            numbers[t, kept],
            None if masks is None else masks[t, kept] & present[t, kept, None, None],
        )
        for t in range(len(annotations))
    ]


def _transform_boxes(frame: list[dict], transform: Transform, size: tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) as x1, y1, x2, y2 of the transformed corners, cut off at the image."""
    boxes = [BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYXY_ABS) for x in frame]
    corners = np.asarray(boxes, dtype=np.float64)[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    corners = transform.apply_coords(corners).reshape(-1, 4, 2)
    corners = corners.clip(0, (size[1], size[0]))
    return np.concatenate([corners.min(1), corners.max(1)], axis=1)


def _transform_mask(
    segmentation: list | dict, transform: Transform, size: tuple[int, int]
) -> np.ndarray:
    """A mask (H, W) of transformed polygons or of a transformed run-length mask."""
    if isinstance(segmentation, dict):
        return transform.apply_segmentation(mask_util.decode(segmentation)).astype(bool)
    polygons = [np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation]
    polygons = [transform.apply_coords(polygon).reshape(-1) for polygon in polygons]
    return polygons_to_bitmask(polygons, *size)


def _fit_boxes(boxes: np.ndarray, masks: np.ndarray, transform: TransformList) -> None:
    """Set boxes of empty masks to zero, and tighten the others where it is needed; in place."""
    tight = BitMasks(torch.from_numpy(masks)).get_bounding_boxes().tensor.numpy()
    empty = ~masks.any((1, 2))
    boxes[empty] = 0
    if not _is_axis_aligned(transform):
        boxes[~empty] = tight[~empty]


def _is_axis_aligned(transform: Transform) -> bool:
    if isinstance(transform, TransformList):
        return all(map(_is_axis_aligned, transform.transforms))
    return isinstance(transform, _AXIS_ALIGNED)


def _to_instances(
    size: tuple[int, int],
    boxes: np.ndarray,
    labels: np.ndarray,
    numbers: np.ndarray,
    masks: np.ndarray | None,
) -> Instances:
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.from_numpy(boxes).float())
    instances.gt_classes = torch.from_numpy(labels)
    instances.gt_ids = torch.from_numpy(numbers)
    if masks is not None:
        instances.gt_masks = BitMasks(torch.from_numpy(masks))
    return instances

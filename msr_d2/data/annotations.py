"""One annotation: bring its segmentation into one of two forms, and say whether it is usable.

After `normalize_segmentation` a segmentation is a list of polygons (each a flat list of x, y in
pixels) or a run-length code with compressed counts (a dict with ``size`` = [height, width]).
"""

from __future__ import annotations

import math
import numbers

import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import BoxMode

NO_MASK = "no segmentation"
FEW_POINTS = "polygon with fewer than 3 points"
ODD_POLYGON = "polygon with an odd number of coordinates"
NOT_FINITE = "coordinates that are not finite"
ZERO_AREA = "mask without area"
RLE_SIZE = "run-length mask of another size than the image"
RLE_SUM = "run lengths that do not add up to the mask size"
UNKNOWN_MASK = "segmentation that is neither polygons nor run-length code"
NO_BOX = "no box of four numbers"
EMPTY_BOX = "box without width or height"
OUTSIDE = "box outside the image"


def normalize_segmentation(segmentation: object) -> tuple[object, str | None]:
    """Bring a segmentation into one of the two forms of this module.

    Polygons that cannot enclose an area (fewer than 3 points) are left out as long as others
    remain; one flat list of numbers is taken as a single polygon; uncompressed run lengths are
    compressed; a binary array (H, W) is encoded.

    Returns:
        (the segmentation, None), or (None, the reason why it cannot be used).
    """
    if segmentation is None or (hasattr(segmentation, "__len__") and len(segmentation) == 0):
        return None, NO_MASK
    if isinstance(segmentation, dict):
        return _normalize_rle(segmentation)
    if isinstance(segmentation, np.ndarray) and segmentation.ndim == 2:
        return mask_util.encode(np.asfortranarray(segmentation.astype(np.uint8))), None
    if isinstance(segmentation, (list, tuple, np.ndarray)):
        return _normalize_polygons(segmentation)
    return None, UNKNOWN_MASK


def _normalize_polygons(polygons: list) -> tuple[list | None, str | None]:
    if isinstance(polygons[0], numbers.Real):
        polygons = [polygons]
    if not all(isinstance(polygon, (list, tuple, np.ndarray)) for polygon in polygons):
        return None, UNKNOWN_MASK
    usable = [polygon for polygon in polygons if len(polygon) >= 6 and len(polygon) % 2 == 0]
    if usable:
        return usable, None
    return None, FEW_POINTS if all(len(p) < 6 for p in polygons) else ODD_POLYGON


def _normalize_rle(rle: dict) -> tuple[dict | None, str | None]:
    size, counts = rle.get("size"), rle.get("counts")
    if not _are_integers(size) or len(size) != 2:
        return None, UNKNOWN_MASK
    if isinstance(counts, (str, bytes)):
        return rle, None
    if not _are_integers(counts):
        return None, UNKNOWN_MASK
    height, width = size
    if sum(counts) != height * width or min(counts, default=0) < 0:
        return None, RLE_SUM
    return mask_util.frPyObjects(rle, height, width), None


def _are_integers(values: object) -> bool:
    is_list = isinstance(values, (list, tuple, np.ndarray))
    return is_list and all(isinstance(value, numbers.Integral) for value in values)


def find_problem(annotation: dict, height: int, width: int, with_mask: bool) -> str | None:
    """Why an annotation cannot be trained on, or None.

    Args:
        annotation: in detectron2's format, its segmentation normalized.
        height, width: of the image as the annotation file states it, in pixels.
        with_mask: whether the model needs masks.
    """
    problem = _box_problem(annotation, height, width)
    if problem is None and with_mask:
        problem = _mask_problem(annotation.get("segmentation"), height, width)
    return problem


def _box_problem(annotation: dict, height: int, width: int) -> str | None:
    mode = annotation.get("bbox_mode", BoxMode.XYXY_ABS)
    if mode not in (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS):  # rotated or relative: not ours to judge
        return None
    box = annotation.get("bbox")
    if not isinstance(box, (list, tuple, np.ndarray)) or len(box) != 4:
        return NO_BOX
    if any(isinstance(v, bool) or not isinstance(v, (numbers.Real, type(None))) for v in box):
        return NO_BOX
    if any(value is None for value in box) or not all(map(math.isfinite, box)):
        return NOT_FINITE
    x1, y1, x2, y2 = box
    if mode == BoxMode.XYWH_ABS:
        x2, y2 = x1 + x2, y1 + y2
    if x2 <= x1 or y2 <= y1:
        return EMPTY_BOX
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return OUTSIDE
    return None


def _mask_problem(segmentation: list | dict | None, height: int, width: int) -> str | None:
    if segmentation is None:
        return NO_MASK
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [height, width]:
            return RLE_SIZE
        return None if mask_util.area(segmentation) > 0 else ZERO_AREA
    try:
        areas = [polygon_area(polygon) for polygon in segmentation]
    except (TypeError, ValueError):  # a coordinate is no number
        return UNKNOWN_MASK
    if not all(map(math.isfinite, areas)):
        return NOT_FINITE
    return None if max(areas) > 0 else ZERO_AREA


def polygon_area(polygon: np.ndarray | list[float]) -> float:
    """Area in square pixels of one polygon [x1, y1, x2, y2, ...] by the shoelace formula."""
    x, y = np.asarray(polygon, dtype=np.float64).reshape(-1, 2).T
    # Relative to the first point, so that the closing edge contributes nothing.
    x, y = x - x[0], y - y[0]
    return 0.5 * abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1]))

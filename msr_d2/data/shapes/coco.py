"""COCO annotations of a rendered scene: polygons for some objects, run-length codes for others."""

from __future__ import annotations

import cv2
import numpy as np
import pycocotools.mask as mask_util

from .dice import Dice
from .outlines import CATEGORIES
from .render import Rendered
from .scene import Scene, Sprite

POLYGON, RLE_STRING, RLE_LIST = "polygon", "rle_string", "rle_list"
# Objects with holes cannot be polygons, so more than a third has to be asked for to get a third.
_FORMATS = {POLYGON: 0.5, RLE_STRING: 0.25, RLE_LIST: 0.25}
_ALL_POLYGONS = 0.15  # share of images that have no run-length codes unless holes force them
_EXACT_IOU = 0.95  # an outline that its rasterisation misses by more gives way to the contour


def categories() -> list[dict]:
    """The ``categories`` list of the json."""
    return [{"id": c.id, "name": c.name, "supercategory": "shape"} for c in CATEGORIES]


def annotate(scene: Scene, rendered: Rendered, dice: Dice) -> list[dict]:
    """The annotations of one image, without ``id`` and ``image_id``.

    Boxes and areas are those of the visible masks. Objects of which nothing can be seen, and
    distractors, get no annotation; each crowd gets a single one.

    Args:
        dice: decides which objects become polygons.
    """
    all_polygons = dice.chance(_ALL_POLYGONS)
    annotations, crowds = [], {}
    for index, sprite in enumerate(scene.sprites):
        mask = rendered.mask(index)
        if sprite.category is None or not mask.any():
            continue
        if sprite.crowd is not None:
            union, _ = crowds.setdefault(sprite.crowd, (np.zeros_like(mask), sprite.category.id))
            union |= mask
            continue
        wanted = POLYGON if all_polygons else dice.weighted(_FORMATS)
        segmentation = _segment(mask, sprite, rendered.areas[index], wanted)
        annotations.append(_record(segmentation, mask, sprite.category.id, iscrowd=0))
    for mask, category_id in crowds.values():
        segmentation = encode_rle(mask, dice.pick((RLE_STRING, RLE_LIST)))
        annotations.append(_record(segmentation, mask, category_id, iscrowd=1))
    return annotations


def mask_to_polygons(mask: np.ndarray) -> list[list[float]] | None:
    """The contours of a mask, or None if it has holes, which COCO polygons cannot express.

    Args:
        mask: (H, W) bool.

    Returns:
        one flat list of x, y per piece, in pixels (pixel j covers [j, j + 1]).
    """
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    crop = mask[y : y + height, x : x + width].astype(np.uint8)
    # cv2's contours run through pixel centres and would lose half a pixel all around; those of a
    # mask of doubled size lose a quarter, which puts them back around every centre of the mask
    doubled = cv2.resize(crop, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if hierarchy is None or (hierarchy[0, :, 3] >= 0).any():
        return None
    return [_flat((contour[:, 0] + 0.5) / 2 + (x, y)) for contour in contours]


def encode_rle(mask: np.ndarray, kind: str) -> dict:
    """Run-length code of an (H, W) bool mask with compressed (string) or plain (list) counts."""
    if kind == RLE_STRING:
        rle = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
        return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def _segment(mask: np.ndarray, sprite: Sprite, full_area: int, wanted: str) -> dict | list:
    if wanted != POLYGON:
        return encode_rle(mask, wanted)
    polygons = _exact_outline(mask, sprite, full_area) or mask_to_polygons(mask)
    if polygons is not None:
        return polygons
    # of the objects that have to be run-length codes, every other one gets each kind
    return encode_rle(mask, RLE_STRING if mask.sum() % 2 else RLE_LIST)


def _exact_outline(mask: np.ndarray, sprite: Sprite, full_area: int) -> list[list[float]] | None:
    """The outline that the sprite was drawn from, if that is what one sees; otherwise None."""
    if len(sprite.parts) > 1 or sprite.cuts or mask.sum() != full_area:
        return None
    points = sprite.pose.to_image(sprite.parts[0])
    height, width = mask.shape
    if points.min() < 0 or (points > (width, height)).any():
        return None
    polygons = [_flat(points)]
    drawn = mask_util.decode(mask_util.merge(mask_util.frPyObjects(polygons, height, width)))
    intersection, union = (drawn.astype(bool) & mask).sum(), (drawn.astype(bool) | mask).sum()
    return polygons if intersection >= _EXACT_IOU * union else None


def _record(segmentation: dict | list, mask: np.ndarray, category_id: int, iscrowd: int) -> dict:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
    return {
        "category_id": category_id,
        "iscrowd": iscrowd,
        "area": int(mask.sum()),
        "bbox": [int(value) for value in box],
        "segmentation": segmentation,
    }


def _flat(points: np.ndarray) -> list[float]:
    return np.round(points, 2).ravel().tolist()

"""Boxes or masks of COCO results against COCO ground truth, one IoU matrix per image and class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pycocotools.mask as mask_util
from pycocotools.coco import COCO

from .cells import cell_indices, check_known, common_cells, warn_of_unknown_categories
from .overlaps import Cell, Overlaps

IOU_TYPES = ("bbox", "segm")


def coco_overlaps(
    coco_gt: COCO, results: Sequence[dict], iou_type: str, img_ids: Sequence | None = None
) -> Overlaps:
    """Compute the IoU of every detection with the ground truths of its image and category.

    Args:
        coco_gt: the ground truth.
        results: N detections in COCO's result format, of images in ``img_ids`` only. They are not
            modified; "segm" needs compressed RLE. An empty sequence is fine.
        iou_type: "bbox" or "segm". As in detectron2, the area of a detection is that of its mask
            for "segm", also where the result has a box.
        img_ids: images to evaluate, all of the ground truth by default.

    Returns:
        the overlaps; the detections keep their order. Detections of a category that the ground
        truth does not know get category index -1: they count nowhere.
    """
    if iou_type not in IOU_TYPES:
        raise ValueError(f"iou_type is {iou_type!r}: use one of {IOU_TYPES}")
    images = np.unique(coco_gt.getImgIds() if img_ids is None else img_ids).tolist()
    image_index = {image: i for i, image in enumerate(images)}
    category_index = {c: i for i, c in enumerate(sorted(coco_gt.getCatIds()))}
    truths = coco_gt.loadAnns(coco_gt.getAnnIds(imgIds=images, catIds=list(category_index)))
    check_known(results, "image_id", image_index)
    warn_of_unknown_categories(results, category_index)

    det_cell = cell_indices(results, "image_id", image_index, category_index)
    gt_cell = cell_indices(truths, "image_id", image_index, category_index)
    det_shapes, det_area = _detection_shapes(coco_gt, results, iou_type)
    gt_shapes = _truth_shapes(coco_gt, truths, iou_type)
    gt_crowd = np.array([bool(x.get("iscrowd", 0)) for x in truths], dtype=bool)
    cells = []
    for det, gt in common_cells(det_cell, gt_cell):
        ious = mask_util.iou(
            [det_shapes[i] for i in det],
            [gt_shapes[i] for i in gt],
            gt_crowd[gt].astype(int).tolist(),
        )
        cells.append(Cell(det, gt, ious))
    return Overlaps(
        det_image=det_cell[0],
        det_category=det_cell[1],
        det_area=det_area,
        gt_image=gt_cell[0],
        gt_category=gt_cell[1],
        gt_area=np.array([x["area"] for x in truths], dtype=np.float64),
        gt_crowd=gt_crowd,
        cells=cells,
        num_categories=len(category_index),
    )


def complete_annotations(coco_gt: COCO) -> None:
    """Fill in what pycocotools needs and hand-made json files often lack, in place.

    ``iscrowd`` is 0 where it is missing, and ``area`` that of the mask, or else of the box.
    """
    for annotation in coco_gt.dataset.get("annotations", ()):
        annotation.setdefault("iscrowd", 0)
        if "area" not in annotation and annotation.get("segmentation"):
            annotation["area"] = float(mask_util.area(coco_gt.annToRLE(annotation)))
        elif "area" not in annotation:
            annotation["area"] = float(annotation["bbox"][2] * annotation["bbox"][3])


def _detection_shapes(coco_gt, results, iou_type):
    """What pycocotools compares (boxes or RLEs), and the areas (N,)."""
    if iou_type == "bbox":
        boxes = [_get(x, "bbox") for x in results]
        return boxes, np.array([box[2] * box[3] for box in boxes], dtype=np.float64)
    rles = [_get(x, "segmentation") for x in results]
    for result, rle in zip(results, rles):
        _check_rle(rle, coco_gt.imgs[result["image_id"]])
    return rles, rle_areas(rles)


def rle_areas(rles: Sequence[dict]) -> np.ndarray:
    """Areas (N,) of compressed RLEs, in pixels."""
    # In chunks: pycocotools stores the length of the list in a uint8, an error in numpy 2.
    chunks = [mask_util.area(rles[i : i + 255]) for i in range(0, len(rles), 255)]
    return np.concatenate([np.zeros(0), *chunks])


def _get(result, key):
    if key not in result:
        raise ValueError(
            f"a result of image {result['image_id']!r} has no {key!r}: evaluate only the tasks "
            "whose predictions the results contain"
        )
    return result[key]


def _check_rle(rle, image):
    """Masks of another size would silently overlap nothing."""
    if not isinstance(rle, dict) or not isinstance(rle.get("counts"), (str, bytes)):
        raise ValueError(
            f"a result of image {image['id']!r} has a mask that is not a compressed RLE "
            "({'size': [height, width], 'counts': string}): encode it by pycocotools.mask.encode"
        )
    size = [image["height"], image["width"]]
    if list(rle["size"]) != size:
        raise ValueError(
            f"a mask of image {image['id']!r} has size {list(rle['size'])}, but the image has "
            f"[height, width] = {size}: predict masks at the size given in the json file"
        )


def _truth_shapes(coco_gt, truths, iou_type):
    if iou_type == "bbox":
        return [x["bbox"] for x in truths]
    for truth in truths:
        if not truth.get("segmentation"):
            raise ValueError(
                f"annotation {truth['id']!r} of the ground truth has no segmentation: masks "
                "cannot be evaluated, only the task 'bbox'"
            )
    return [coco_gt.annToRLE(x) for x in truths]

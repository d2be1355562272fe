"""Boxes as masks: the trivial way to train a mask model without masks, to compare with."""

from __future__ import annotations

import os

import numpy as np
import pycocotools.mask as mask_util

from .content import Content, check_ytvis, read_content


def fill_boxes(source: Content | str | os.PathLike) -> dict:
    """A YouTube-VIS json whose masks are its filled boxes.

    A pixel belongs to a box if its centre lies inside. Masks that are there are replaced.

    Args:
        source: path of the json file, or what it holds; not modified.

    Raises:
        DatasetError: as :func:`check_ytvis`.
    """
    content = check_ytvis(*read_content(source, "videos"))
    videos = {video["id"]: video for video in content["videos"]}
    filled = []
    for annotation in content["annotations"]:
        video = videos[annotation["video_id"]]
        size = video["height"], video["width"]
        masks = [box and _filled(box, *size) for box in annotation["bboxes"]]
        areas = [mask and int(mask_util.area(mask)) for mask in masks]
        filled.append({**annotation, "segmentations": masks, "areas": areas})
    return {**content, "annotations": filled}


def _filled(box: list[float], height: int, width: int) -> dict:
    x, y, box_width, box_height = box
    columns = np.arange(width) + 0.5
    rows = np.arange(height) + 0.5
    inside = (columns >= x) & (columns <= x + box_width)
    mask = ((rows >= y) & (rows <= y + box_height))[:, None] & inside
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}

"""YouTube-VIS json with an entry per video -> COCO json with an entry per frame and track ids."""

from __future__ import annotations

import logging
import os

from ...ytvis_checks import IGNORED_FRAMES
from .content import Content, box_area, check_ytvis, read_content

logger = logging.getLogger(__name__)


def ytvis_to_coco_frames(source: Content | str | os.PathLike) -> dict:
    """Spread videos and tracks of a YouTube-VIS json over COCO images and annotations.

    Images get ``video_id`` and ``frame_id`` (from 0), annotations ``video_id`` and ``track_id``
    (the object's id, or its own ``track_id``). Frames without an object stay as images. COCO's
    format cannot say that nothing is known of an object in a frame: ``ignored_frames`` are lost,
    with a warning.

    Args:
        source: path of the json file, or what it holds; not modified.

    Raises:
        DatasetError: as :func:`check_ytvis`.
    """
    ytvis, where = read_content(source, "videos")
    ytvis = check_ytvis(ytvis, where)
    images, first_image = [], {}
    for video in ytvis["videos"]:
        first_image[video["id"]] = len(images) + 1
        images += _images(video, len(images) + 1)
    _warn_of_ignored_frames(ytvis["annotations"], where)
    annotations = []
    for item in ytvis["annotations"]:
        for t, box in enumerate(item["bboxes"]):
            if box is not None:
                image_id = first_image[item["video_id"]] + t
                annotations.append(_frame_annotation(item, t, len(annotations) + 1, image_id))
    dropped = ("file_names", "length")
    videos = [{k: v for k, v in x.items() if k not in dropped} for x in ytvis["videos"]]
    content = {"info": ytvis.get("info", {}), "videos": videos, "images": images}
    return {**content, "categories": ytvis["categories"], "annotations": annotations}


def _warn_of_ignored_frames(annotations: list[dict], where: str) -> None:
    ignored = [item["id"] for item in annotations if item.get(IGNORED_FRAMES)]
    if ignored:
        logger.warning(
            "%s: %d objects have '%s' (first: annotation %s), which COCO's format lacks: the "
            "objects look absent in these frames. Leave their images out if they matter.",
            *(where, len(ignored), IGNORED_FRAMES, ignored[0]),
        )


def _images(video: dict, first_id: int) -> list[dict]:
    return [
        {
            "id": first_id + t,
            "file_name": name,
            "height": video["height"],
            "width": video["width"],
            "video_id": video["id"],
            "frame_id": t,
        }
        for t, name in enumerate(video["file_names"])
    ]


def _frame_annotation(item: dict, t: int, number: int, image_id: int) -> dict:
    areas, masks = item.get("areas"), item.get("segmentations")
    annotation = {
        "id": number,
        "image_id": image_id,
        "video_id": item["video_id"],
        "track_id": item.get("track_id", item["id"]),
        "category_id": item["category_id"],
        "iscrowd": item.get("iscrowd", 0),
        "bbox": item["bboxes"][t],
        "area": box_area(item["bboxes"][t]) if not areas or areas[t] is None else areas[t],
    }
    if masks and masks[t] is not None:
        annotation["segmentation"] = masks[t]
    return annotation

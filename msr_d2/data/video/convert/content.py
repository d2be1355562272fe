"""Annotation files as parsed json: read, check, clean and write them."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pycocotools.mask as mask_util
from detectron2.structures import BoxMode

from ...annotations import NO_BOX, ZERO_AREA, find_problem, normalize_segmentation
from ...coco import read_annotation_json
from ...errors import DatasetError
from ...report import SkipReport

Content = Mapping[str, object]
FRAME_LISTS = ("bboxes", "areas", "segmentations")  # one entry a frame each


def read_content(source: Content | str | os.PathLike, units: str) -> tuple[dict, str]:
    """Parsed annotations and how to call them in messages.

    Args:
        source: path of a json file, or what it holds.
        units: the list of what is annotated, "images" (COCO) or "videos" (YouTube-VIS).

    Raises:
        DatasetError: if the file is missing, is not json, or lacks ``units`` or categories.
    """
    if not isinstance(source, Mapping):
        path = os.fspath(source)
        return read_annotation_json(path, os.path.basename(path), units), f"'{path}'"
    where = "the given annotations"
    for key in (units, "categories"):
        if not isinstance(source.get(key), list):
            raise DatasetError(f"{where} have no list '{key}'.")
    return dict(source), where


def write_annotation_json(content: Content, path: str | os.PathLike) -> None:
    """Write a json file, its folder made if needed; it is either complete or not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
    os.replace(temporary, path)


def check_ytvis(content: Content, where: str = "the annotations") -> dict:
    """Check annotations in YouTube-VIS format, and take out what no training can use.

    A box without area or outside the frame becomes null, as does a mask that is malformed or of
    another size (its box stays). Objects that are left with no box at all go. Where a mask has no
    box, its box is filled in; missing areas become those of the boxes. What was taken out is
    logged once, with reasons and examples.

    Args:
        content: parsed json; not modified.
        where: name of the source, for messages.

    Returns:
        the cleaned annotations; ``content``'s other entries are kept.

    Raises:
        DatasetError: for ids used twice, unknown videos or categories, and lists that do not have
            one entry a frame; names the object and the cure.
    """
    _check_ids(content["categories"], "category", where)
    _check_ids(content["videos"], "video", where)
    _check_ids(content.get("annotations") or [], "annotation", where)
    for video in content["videos"]:
        _check_video(video, where)
    videos = {video["id"]: video for video in content["videos"]}
    categories = {category["id"] for category in content["categories"]}
    report, annotations = SkipReport(where), []
    for annotation in content.get("annotations") or []:
        _check_object(annotation, videos, categories, where)
        cleaned = _clean(annotation, videos[annotation["video_id"]], report)
        if any(box is not None for box in cleaned["bboxes"]):
            annotations.append(cleaned)
    report.log(cure="Correct the source if they matter.")
    return {**content, "annotations": annotations}


def mask_box(segmentation: dict | list, height: int, width: int) -> list[float] | None:
    """Box [x, y, w, h] in pixels of a segmentation; None if it is malformed or empty."""
    segmentation, problem = normalize_segmentation(segmentation)
    if problem is not None:
        return None
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    box = mask_util.toBbox(segmentation).tolist()
    return box if box[2] > 0 and box[3] > 0 else None


def _check_ids(items: list[dict], kind: str, where: str) -> None:
    for item, count in Counter(item.get("id") for item in items).items():
        if isinstance(item, bool) or not isinstance(item, int) or item < 0 or count > 1:
            raise DatasetError(
                f"{where}: {kind} id {item!r} is used twice or is no non-negative integer; "
                "number them 1..N."
            )


def _check_video(video: dict, where: str) -> None:
    where = f"{where}: video {video['id']}"
    for key in ("height", "width"):
        value = video.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DatasetError(f"{where} has {key} {value!r}; it must be a number of pixels.")
    names = video.get("file_names")
    if not isinstance(names, list) or not names:
        raise DatasetError(f"{where} has no frames: 'file_names' is {names!r}. Remove the video.")
    if video.get("length", len(names)) != len(names):
        raise DatasetError(
            f"{where} has length {video['length']} but {len(names)} file_names (first: "
            f"'{names[0]}'). Correct one of them."
        )


def _check_object(annotation: dict, videos: dict, categories: set[int], where: str) -> None:
    where = f"{where}: annotation {annotation['id']}"
    if annotation.get("video_id") not in videos:
        raise DatasetError(
            f"{where} has video_id {annotation.get('video_id')!r}, which is not in 'videos'. Add "
            "the video or take the annotation out."
        )
    if annotation.get("category_id") not in categories:
        raise DatasetError(
            f"{where} has category_id {annotation.get('category_id')!r}, which is not in "
            f"'categories' (ids {sorted(categories)})."
        )
    length = len(videos[annotation["video_id"]]["file_names"])
    for key in FRAME_LISTS:
        values = annotation.get(key)
        if values is None and (key != "bboxes" or annotation.get("segmentations")):
            continue
        if not isinstance(values, list) or len(values) != length:
            found = f"{len(values)} entries" if isinstance(values, list) else repr(values)
            raise DatasetError(
                f"{where} has {found} in '{key}' for the {length} frames of video "
                f"{annotation['video_id']}. Write one a frame, null where it is not visible."
            )


def _clean(annotation: dict, video: dict, report: SkipReport) -> dict:
    """A copy whose unusable boxes and masks are None, with boxes where only a mask was given."""
    size, length = (video["height"], video["width"]), len(video["file_names"])
    boxes = annotation.get("bboxes") or [None] * length
    masks = annotation.get("segmentations") or [None] * length
    cleaned = []
    for file_name, box, mask in zip(video["file_names"], boxes, masks):
        box, mask, problem = _clean_frame(box, mask, size)
        cleaned.append((box, mask))
        if problem is not None:
            report.add(problem, annotation, {"file_name": file_name})
    result = {**annotation, "bboxes": [box for box, _ in cleaned]}
    if annotation.get("segmentations") is not None:
        result["segmentations"] = [mask for _, mask in cleaned]
    if annotation.get("areas") is not None:
        result["areas"] = list(map(_area, annotation["areas"], result["bboxes"]))
    return result


def _clean_frame(
    box: object, mask: object, size: tuple[int, int]
) -> tuple[list | None, object, str | None]:
    """Box and mask of one frame, None where they cannot be used, and the reason for it."""
    mask_problem = _mask_problem(mask, size) if mask else None
    mask = mask if mask and mask_problem is None else None
    if box is None and mask is not None:
        box = mask_box(mask, *size)
        mask_problem = ZERO_AREA if box is None else None
    if box is None:
        return None, None, mask_problem
    box_problem = _box_problem(box, size)
    return (None, None, box_problem) if box_problem else (box, mask, mask_problem)


def _area(area: float | None, box: list[float] | None) -> float | None:
    if box is None:
        return None
    return box_area(box) if area is None else area


def _box_problem(box: object, size: tuple[int, int]) -> str | None:
    numbers = isinstance(box, (list, tuple)) and len(box) == 4
    if not numbers or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in box):
        return NO_BOX
    return find_problem({"bbox": box, "bbox_mode": BoxMode.XYWH_ABS}, *size, with_mask=False)


def _mask_problem(mask: object, size: tuple[int, int]) -> str | None:
    mask, problem = normalize_segmentation(mask)
    record = {"bbox": [0, 0, 1, 1], "segmentation": mask}  # the box is judged by itself
    return problem or find_problem(record, *size, with_mask=True)


def box_area(box: list[float]) -> float:
    """Area of [x, y, w, h] in square pixels; an int for integer boxes."""
    area = box[2] * box[3]
    return int(area) if math.isfinite(area) and area == int(area) else area

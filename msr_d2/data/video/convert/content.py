"""Annotation files as parsed json: read, check, clean and write them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from detectron2.structures import BoxMode

from ...annotations import OUTSIDE, ZERO_AREA, find_problem
from ...coco import read_annotation_json
from ...errors import DatasetError
from ...report import SkipReport
from ...ytvis_checks import (
    IGNORED_FRAMES,
    check_categories,
    check_ids,
    check_object,
    check_videos,
    is_integer,
    mask_box,
)

Content = Mapping[str, object]
FRAME_LISTS = ("bboxes", "areas", "segmentations")  # one entry a frame each


def read_content(source: Content | str | os.PathLike, units: str) -> tuple[dict, str]:
    """Parsed annotations and how to call them in messages.

    Args:
        source: path of a json file, or what it holds.
        units: the list of what is annotated, "images" (COCO) or "videos" (YouTube-VIS).

    Raises:
        DatasetError: if the file is missing, is not json, or lacks ``units`` or categories, or
            one of their entries is no object.
    """
    if isinstance(source, Mapping):
        content, where = dict(source), "the given annotations"
    else:
        path = os.fspath(source)
        content, where = read_annotation_json(path, os.path.basename(path), units), f"'{path}'"
    for key in (units, "categories", "annotations"):
        values = content.get(key)
        if values is None and key == "annotations":
            continue
        if not isinstance(values, list):
            raise DatasetError(f"{where}: no list '{key}'. Add one.")
        wrong = [i for i, value in enumerate(values) if not isinstance(value, Mapping)]
        if wrong:
            raise DatasetError(
                f"{where}: number {wrong[0]} (from 0) of '{key}' is {values[wrong[0]]!r:.60}, not "
                "an object {'id': ..., ...}. Correct it or take it out."
            )
    return content, where


def write_annotation_json(content: Content, path: str | os.PathLike) -> None:
    """Write a json file, its folder made if needed; it is either complete or not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
    os.replace(temporary, path)


def check_ytvis(content: Content, where: str = "the annotations") -> dict:
    """Check annotations in YouTube-VIS format, and take out what no training can use.

    A box that is malformed, without area or outside the frame becomes null, as does a mask that is
    malformed or of another size (its box stays). Objects that are left with no box at all go. Where
    a mask has no box, its box is filled in; missing areas become those of the boxes. What was taken
    out is logged once, with reasons and examples.

    Null says that the object is absent. That is known of a box outside the frame and of a mask
    without a pixel; the other frames that have lost their box are listed in the object's
    ``ignored_frames``, so that no training takes it for absent there.

    Args:
        content: parsed json; not modified.
        where: name of the source, for messages.

    Returns:
        the cleaned annotations; ``content``'s other entries are kept.

    Raises:
        DatasetError: for ids used twice, unknown videos or categories, and lists that do not have
            one entry a frame; names the object and the cure.
    """
    check_categories(content["categories"], where)
    check_videos(content["videos"], where)
    check_ids(content.get("annotations") or [], "annotation", where)
    videos = {video["id"]: video for video in content["videos"]}
    categories = {category["id"] for category in content["categories"]}
    report, annotations = SkipReport(where), []
    for annotation in content.get("annotations") or []:
        number = annotation.get("video_id")
        if not is_integer(number) or number not in videos:
            raise DatasetError(
                f"{where}: annotation {annotation['id']} has video_id {number!r}, which is not in "
                "'videos'. Add the video or take the annotation out."
            )
        check_object(annotation, videos[number], categories, where, FRAME_LISTS)
        cleaned = _clean(annotation, videos[number], report)
        if any(box is not None for box in cleaned["bboxes"]):
            annotations.append(cleaned)
    report.log(
        cure=f"Frames without a usable box are listed in '{IGNORED_FRAMES}', unless the object "
        "lies outside the image. Correct the source if they matter."
    )
    return {**content, "annotations": annotations}


def _clean(annotation: dict, video: dict, report: SkipReport) -> dict:
    """A copy whose unusable boxes and masks are None, with boxes where only a mask was given."""
    size, length = (video["height"], video["width"]), len(video["file_names"])
    boxes = annotation.get("bboxes") or [None] * length
    masks = annotation.get("segmentations") or [None] * length
    cleaned, ignored = [], set(annotation.get(IGNORED_FRAMES) or ())
    for t, (box, mask) in enumerate(zip(boxes, masks)):
        box, mask, problem = _clean_frame(box, mask, size)
        cleaned.append((box, mask))
        if problem is not None:
            report.add(problem, annotation, {"file_name": video["file_names"][t]})
        if box is None and problem not in (None, OUTSIDE, ZERO_AREA):
            ignored.add(t)
    result = {**annotation, "bboxes": [box for box, _ in cleaned]}
    if annotation.get("segmentations"):
        result["segmentations"] = [mask for _, mask in cleaned]
    if annotation.get("areas"):
        result["areas"] = list(map(_area, annotation["areas"], result["bboxes"]))
    if ignored:
        result[IGNORED_FRAMES] = sorted(ignored)
    return result


def _clean_frame(
    box: object, mask: object, size: tuple[int, int]
) -> tuple[list | None, object, str | None]:
    """Box and mask of one frame, None where they cannot be used, and the reason for it."""
    found, mask_problem = mask_box(mask, *size) if mask else (None, None)
    mask = mask if found is not None else None
    if box is None or box == []:
        return found, mask, mask_problem
    record = {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS}
    box_problem = find_problem(record, *size, with_mask=False)
    return (None, None, box_problem) if box_problem else (box, mask, mask_problem)


def _area(area: float | None, box: list[float] | None) -> float | None:
    if box is None:
        return None
    return box_area(box) if area is None else area


def box_area(box: list[float]) -> float:
    """Area of [x, y, w, h] in square pixels; an int for integer boxes."""
    area = box[2] * box[3]
    return int(area) if math.isfinite(area) and area == int(area) else area

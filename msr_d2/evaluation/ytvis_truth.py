"""Annotation files in YouTube-VIS format: read as the training does, checked before they are used.

What the training accepts is accepted here: a video without ``length``, annotations of videos that
are not in the file, boxes without masks. What cannot be evaluated is an error with the file and
the entry.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Union

from .ytvis_tracks import check_boxes, check_keys, check_masks, check_references, entry_name

logger = logging.getLogger(f"detectron2.{__name__}")

PathLike = Union[str, "os.PathLike[str]"]
_VIDEO_KEYS = ("id", "length", "height", "width")


def load_ytvis(path: PathLike) -> dict[str, Any]:
    """Read a json file in YouTube-VIS format and check its videos, categories and annotations.

    Returns:
        the content; videos without ``length`` have that of their ``file_names``, and annotations
        that belong to no video are left out with a warning.

    Raises:
        ValueError: it is not in this format, with the file and the first wrong entry.
    """
    with open(path) as file:
        content = json.load(file)
    missing = {"videos", "categories"} - set(content if isinstance(content, dict) else ())
    if missing:
        raise ValueError(f"{path} has no {sorted(missing)}: it is not in YouTube-VIS format")
    for video in content["videos"]:
        if isinstance(video, dict) and isinstance(video.get("file_names"), list):
            video.setdefault("length", len(video["file_names"]))
    try:
        _leave_out_strays(content, path)
        check_ground_truth(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return content


def check_ground_truth(content: Mapping[str, Any]) -> None:
    """Raise ValueError if videos or annotations lack a key, or annotations refer to nothing.

    Masks and boxes are checked by :func:`check_tracks`, or where they are read.
    """
    for i, video in enumerate(content["videos"]):
        check_keys(video, _VIDEO_KEYS, entry_name(video, i, "video"))
    for i, category in enumerate(content["categories"]):
        check_keys(category, ("id", "name"), entry_name(category, i, "category"))
    for kind in ("videos", "categories"):
        ids = [x["id"] for x in content[kind]]
        double = {x for x in ids if ids.count(x) > 1} if len(set(ids)) < len(ids) else ()
        if double:
            raise ValueError(f"the {kind} have the ids {sorted(double)} more than once")
    videos, categories = ({x["id"] for x in content[k]} for k in ("videos", "categories"))
    for i, annotation in enumerate(content.get("annotations") or ()):
        check_references(annotation, entry_name(annotation, i, "annotation"), videos, categories)


def is_withheld(ground_truth: Mapping[str, Any]) -> bool:
    """Whether there is nothing to compare with, as in public files for validation and test."""
    return not ground_truth.get("annotations")


def has_masks(ground_truth: Mapping[str, Any]) -> bool:
    """Whether any annotation has a mask in any frame; else there are only boxes."""
    return any(_is_masked(x) for x in ground_truth.get("annotations") or ())


def tasks_of(ground_truth: Mapping[str, Any], tasks: Sequence[str], path: PathLike) -> list[str]:
    """The tasks that the annotations allow; says so where "segm" becomes "bbox".

    Args:
        ground_truth: of :func:`load_ytvis`.
        tasks: those that are wanted, of "segm" and "bbox".
        path: its file.
    """
    if "segm" not in tasks or is_withheld(ground_truth) or has_masks(ground_truth):
        return list(tasks)
    logger.warning("box AP of tracks; mask AP needs masks in %s", path)
    return ["bbox"]


def check_tracks(ground_truth: Mapping[str, Any], tasks: Sequence[str], path: PathLike) -> None:
    """Raise ValueError for the first annotation that a task cannot be evaluated with.

    This takes no time: masks are looked at, but not decoded.

    Args:
        ground_truth: of :func:`load_ytvis`.
        tasks: of "segm" and "bbox", as from :func:`tasks_of`.
        path: its file.
    """
    videos = {x["id"]: x for x in ground_truth["videos"]}
    for i, annotation in enumerate(ground_truth.get("annotations") or ()):
        name, video = entry_name(annotation, i, "annotation"), videos[annotation["video_id"]]
        if "segm" in tasks and _lacks_masks(annotation):
            raise ValueError(
                f"{path}: {name} of video {video['id']!r} has boxes but no masks "
                "('segmentations'), which other annotations have: add its masks, take it out, or "
                "take all masks out to evaluate boxes"
            )
        try:
            if "segm" in tasks:
                check_masks(annotation, video, name)
            if "bbox" in tasks:
                check_boxes(annotation, video, name)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _leave_out_strays(content: dict[str, Any], path: PathLike) -> None:
    annotations = content.get("annotations") or []
    videos = [x.get("id") for x in content["videos"] if isinstance(x, dict)]
    known = {x for x in videos if isinstance(x, (int, str))}
    kept = [x for x in annotations if not isinstance(x, dict) or x.get("video_id") in known]
    if len(kept) < len(annotations):
        strays = len(annotations) - len(kept)
        logger.warning("%d annotations of '%s' belong to no video in it.", strays, path)
        content["annotations"] = kept


def _is_masked(annotation: Mapping[str, Any]) -> bool:
    return any(annotation.get("segmentations") or ())  # null and an empty list are no mask


def _lacks_masks(annotation: Mapping[str, Any]) -> bool:
    """A list of nulls is an object that is seen nowhere, unless there are boxes."""
    if not annotation.get("segmentations"):
        return True
    return any(annotation.get("bboxes") or ()) and not _is_masked(annotation)

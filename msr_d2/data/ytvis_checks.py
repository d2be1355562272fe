"""What annotations in YouTube-VIS format must look like; the loader and the converters share it.

A file whose structure is wrong is an error. A wrong box or mask of one frame is not: it is left
out, reported, and its frame is one of which nothing is known (see ``IGNORED_FRAMES``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pycocotools.mask as mask_util

from .annotations import ZERO_AREA, find_problem, normalize_segmentation
from .errors import DatasetError

# Frames (from 0) in which an object may or may not be visible: it has no usable annotation there.
# An extension of the format; without it null is all one can write, and null says "absent".
IGNORED_FRAMES = "ignored_frames"


def check_ids(items: object, kind: str, where: str) -> None:
    """Check a list of objects with an ``id`` each.

    Args:
        items: as parsed from json.
        kind: what an item is, for messages.
        where: name of the source, for messages.

    Raises:
        DatasetError: if an item is no object, or its id is used twice or no non-negative integer.
    """
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise DatasetError(
            f"{where}: a {type(items).__name__} stands where the list of every {kind} belongs. "
            "Write a list [{'id': ..., ...}, ...]."
        )
    seen = set()
    for i, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise DatasetError(
                f"{where}: {kind} number {i} (from 0) is a {type(item).__name__}, not an object "
                "{'id': ..., ...}. Correct it or take it out."
            )
        number = item.get("id")
        if not is_integer(number) or number < 0 or number in seen:
            raise DatasetError(
                f"{where}: {kind} id {number!r} is used twice or is no non-negative integer; "
                "number them 1..N."
            )
        seen.add(number)


def check_categories(categories: object, where: str) -> None:
    """Check that every category has an id of its own and a name.

    Raises:
        DatasetError: names the category and the cure.
    """
    check_ids(categories, "category", where)
    for category in categories:
        if not isinstance(category.get("name"), str):
            raise DatasetError(
                f"{where}: category {category['id']} has the name {category.get('name')!r}. Give "
                "it one, as a string."
            )


def check_videos(videos: object, where: str) -> None:
    """Check ids, sizes and frames of videos.

    Raises:
        DatasetError: names the video and the cure.
    """
    check_ids(videos, "video", where)
    for video in videos:
        _check_video(video, f"{where}: video {video['id']}")


def _check_video(video: Mapping, where: str) -> None:
    for key in ("height", "width"):
        value = video.get(key)
        if not is_integer(value) or value < 1:
            raise DatasetError(
                f"{where} has {key} {value!r}. Write that of its frames, in whole pixels."
            )
    names = video.get("file_names")
    if not isinstance(names, list) or not names:
        raise DatasetError(f"{where} has no frames: 'file_names' is {names!r}. Remove the video.")
    for t, name in enumerate(names):
        if not isinstance(name, str):
            raise DatasetError(
                f"{where} has {name!r} as the file name of frame {t}. Write a path relative to the "
                "image folder, as a string."
            )
    if video.get("length", len(names)) != len(names):
        raise DatasetError(
            f"{where} has length {video['length']}, but {len(names)} file_names (first: "
            f"'{names[0]}'). Correct one of them."
        )


def check_object(
    annotation: Mapping,
    video: Mapping,
    category_ids: Collection[int],
    where: str,
    lists: Sequence[str] = ("bboxes", "segmentations"),
) -> None:
    """Check one annotation, whose id is known to be valid, against its video.

    ``bboxes`` may be missing where there are ``segmentations``, and the other way round.

    Args:
        lists: keys that have to be missing, empty or one entry a frame.

    Raises:
        DatasetError: names annotation, video and cure.
    """
    where = f"{where}: annotation {annotation['id']} (video {video['id']})"
    category = annotation.get("category_id")
    if not is_integer(category) or category not in category_ids:
        raise DatasetError(
            f"{where} has category_id {category!r}, which is not in 'categories' (ids "
            f"{sorted(category_ids)}). Add the category there or correct the id."
        )
    if annotation.get("bboxes") is None and not annotation.get("segmentations"):
        raise DatasetError(
            f"{where} has no list 'bboxes'. Add one with [x, y, width, height] per frame, null "
            "where the object is not visible."
        )
    for key in lists:
        _check_list(annotation, key, video, where)
    _check_ignored_frames(annotation.get(IGNORED_FRAMES), video, where)


def _check_list(annotation: Mapping, key: str, video: Mapping, where: str) -> None:
    values, names = annotation.get(key), video["file_names"]
    if values is None or (values == [] and key != "bboxes"):
        return
    if not isinstance(values, list) or len(values) != len(names):
        found = f"{len(values)} {key}" if isinstance(values, list) else f"as '{key}' {values!r:.60}"
        raise DatasetError(
            f"{where} has {found} for {len(names)} frames (first: '{names[0]}'). Write a list with "
            "one entry per frame, null where the object is not visible."
        )


def _check_ignored_frames(frames: object, video: Mapping, where: str) -> None:
    length = len(video["file_names"])
    is_list = isinstance(frames, list) and all(is_integer(t) and 0 <= t < length for t in frames)
    if frames is not None and not is_list:
        raise DatasetError(
            f"{where} has {frames!r:.60} as '{IGNORED_FRAMES}'. Write a list of frame numbers from "
            f"0 to {length - 1}."
        )


def mask_box(segmentation: object, height: int, width: int) -> tuple[list | None, str | None]:
    """The box of the mask of a frame.

    Returns:
        ([x, y, w, h] in pixels, None), or (None, the reason why there is no box).
    """
    segmentation, problem = normalize_segmentation(segmentation)
    record = {"bbox": [0, 0, 1, 1], "segmentation": segmentation}  # the box is not looked at
    problem = problem or find_problem(record, height, width, with_mask=True)
    if problem is not None:
        return None, problem
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    box = mask_util.toBbox(segmentation).tolist()
    return (box, None) if box[2] > 0 and box[3] > 0 else (None, ZERO_AREA)


def is_integer(value: object) -> bool:
    """Whether a value of a json file is an integer; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)

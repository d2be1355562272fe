"""Tracks from json files in YouTube-VIS format, with errors that say what is wrong in which entry.

Shape shorthand: T frames of a video. ``videos`` maps the id of a video to its entry, which has
``id``, ``length``, ``height`` and ``width``.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from .track_overlaps import MaskTrack


def check_results(results: Sequence[dict], videos: Collection, categories: Collection) -> None:
    """Raise ValueError for the first result that cannot be evaluated.

    Args:
        results: entries with ``video_id``, ``category_id`` and ``score``.
        videos: ids of the ground truth's videos.
        categories: ids of its categories.
    """
    for i, result in enumerate(results):
        name = entry_name(result, i, "result")
        check_references(result, name, videos, categories)
        score = result.get("score")
        if not isinstance(score, numbers.Real) or not math.isfinite(score):
            raise ValueError(f"{name} has score {score!r}: it must be a finite number")


def read_mask_tracks(
    entries: Iterable[dict], videos: Mapping[Any, dict], kind: str = "result"
) -> list[MaskTrack]:
    """The masks of annotations or results; compressed RLEs are taken as they are.

    Args:
        entries: with ``segmentations``: for each frame a compressed or uncompressed RLE, a list of
            polygons, or null.
        videos: by id.
        kind: what to call an entry in errors.

    Raises:
        ValueError: the number of frames or the size of a mask is not that of the video.
    """
    names = [entry_name(x, i, kind) for i, x in enumerate(entries)]
    tracks = MaskTrack.from_many(
        [read_rles(x, videos[x["video_id"]], name) for x, name in zip(entries, names)]
    )
    for entry, track, name in zip(entries, tracks, names):
        video = videos[entry["video_id"]]
        pixels = video["height"] * video["width"]
        if track.areas.max(initial=0) > pixels:
            frame = int(track.areas.argmax())
            raise ValueError(
                f"the mask of {name} in frame {frame} covers {track.areas[frame]:.0f} pixels, but "
                f"a frame of video {video['id']!r} has {pixels}: its counts are broken"
            )
    return tracks


def read_mask_track(entry: dict, video: dict) -> MaskTrack:
    """The masks of one annotation or result of a video, see `read_mask_tracks`."""
    return read_mask_tracks([entry], {entry["video_id"]: video})[0]


def read_rles(entry: dict, video: dict, name: str = "a track") -> list[dict | None]:
    """T compressed RLEs or None, from ``segmentations`` of any form, see `read_mask_tracks`."""
    frames = frames_of(entry, "segmentations", video, name)
    size = [video["height"], video["width"]]
    return [
        # What results files hold, without a call: there are many of them.
        x
        if x is None or (type(x) is dict and x.get("size") == size and type(x.get("counts")) is str)
        else _to_rle(x, size, _name_of_mask(name, t, video))
        for t, x in enumerate(frames)
    ]


def read_box_tracks(
    entries: Iterable[dict], videos: Mapping[Any, dict], kind: str = "result"
) -> list[np.ndarray]:
    """Boxes x, y, width, height (T, 4) of each entry, zeros where absent.

    They come from ``bboxes``, or from the masks of an entry that has none.
    """
    return [
        _read_box_track(x, videos[x["video_id"]], entry_name(x, i, kind))
        for i, x in enumerate(entries)
    ]


def mean_area(areas: np.ndarray) -> float:
    """Mean of the areas (T,) that are not 0, or 0 if there is none: the size of a track."""
    count = np.count_nonzero(areas)
    return float(areas.sum() / count) if count else 0.0


def track_areas(track: MaskTrack | np.ndarray) -> np.ndarray:
    """Areas (T,) of masks or boxes."""
    return track.areas if isinstance(track, MaskTrack) else track[:, 2] * track[:, 3]


def annotated_area(annotation: dict, track: MaskTrack | np.ndarray) -> float:
    """As officially, from the ``areas`` of an annotation; measured where it has none."""
    areas = annotation.get("areas")
    if areas is None:
        return mean_area(track_areas(track))
    present = [x for x in areas if x]
    return float(np.mean(present)) if present else 0.0


def check_masks(entry: dict, video: dict, name: str) -> None:
    """Raise ValueError for masks that cannot be read; they are not decoded."""
    size = [video["height"], video["width"]]
    for t, mask in enumerate(frames_of(entry, "segmentations", video, name)):
        if mask and not isinstance(mask, list):
            _check_rle(mask, size, _name_of_mask(name, t, video))


def check_boxes(entry: dict, video: dict, name: str) -> None:
    """Raise ValueError for boxes that cannot be read, of an entry with boxes or masks."""
    if _has_boxes(entry):
        _box_frames(entry, video, name)
    else:
        check_masks(entry, video, name)


def _has_boxes(entry: dict) -> bool:
    return entry.get("bboxes") is not None or entry.get("segmentations") is None


def _box_frames(entry: dict, video: dict, name: str) -> list:
    frames = frames_of(entry, "bboxes", video, name)
    wrong = [t for t, x in enumerate(frames) if x is not None and len(x) not in (0, 4)]
    if wrong:
        raise ValueError(
            f"the box of {name} in frame {wrong[0]} is {frames[wrong[0]]}: give x, y, width and "
            "height, or null"
        )
    return frames


def _read_box_track(entry: dict, video: dict, name: str) -> np.ndarray:
    if _has_boxes(entry):
        frames = _box_frames(entry, video, name)
    else:
        frames = [x and mask_util.toBbox(x) for x in read_rles(entry, video, name)]
    empty = [0.0, 0.0, 0.0, 0.0]
    boxes = [empty if x is None or len(x) == 0 else x for x in frames]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def check_references(entry: dict, name: str, videos: Collection, categories: Collection) -> None:
    """Raise ValueError unless an annotation or result is of a known video and category."""
    check_keys(entry, ("video_id", "category_id"), name)
    if entry["video_id"] not in videos:
        raise ValueError(
            f"{name} is of video_id {entry['video_id']!r}, which the ground truth does not have: "
            "the files belong to different data sets, or it is outside the selection (leave it out)"
        )
    if entry["category_id"] not in categories:
        raise ValueError(
            f"{name} has category_id {entry['category_id']!r}, the ground truth has only "
            f"{sorted(categories)}: use the ids of the json file, not class indices, and leave out "
            "other categories"
        )


def check_keys(entry: Any, keys: Sequence[str], name: str) -> None:
    """Raise ValueError unless an entry of a json file is an object with these keys."""
    if not isinstance(entry, dict):
        raise ValueError(f"{name} is a {type(entry).__name__}, not an object with {list(keys)}")
    missing = [x for x in keys if x not in entry]
    if missing:
        raise ValueError(f"{name} has no {missing[0]!r}")


def entry_name(entry: Any, index: int, kind: str) -> str:
    """What errors call an entry: by its id; results have none and are counted from 0."""
    known = isinstance(entry, dict) and "id" in entry
    return f"{kind} {entry['id']!r}" if known else f"{kind} number {index}"


def frames_of(entry: dict, key: str, video: dict, name: str) -> list:
    """The list under `key` with one entry for each of the T frames; ValueError without it."""
    frames = entry.get(key)
    if not isinstance(frames, (list, tuple)):
        raise ValueError(
            f"{name} of video {video['id']!r} has no {key!r} (a list with one entry for each "
            "frame): evaluate only the tasks that both files have"
        )
    if len(frames) != video["length"]:
        raise ValueError(
            f"{key!r} of {name} of video {video['id']!r} has {len(frames)} entries, but the video "
            f"has {video['length']} frames: write null for a frame without the object"
        )
    return frames


def _to_rle(mask: Any, size: list[int], name: str) -> dict | None:
    """The compressed RLE of a mask of any other form."""
    if not mask:
        return None
    if isinstance(mask, list):
        return mask_util.merge(mask_util.frPyObjects(mask, *size))
    _check_rle(mask, size, name)
    return mask_util.frPyObjects(mask, *size) if isinstance(mask["counts"], list) else mask


def _check_rle(mask: Any, size: list[int], name: str) -> None:
    counts = mask.get("counts") if isinstance(mask, dict) else None
    if not isinstance(counts, (str, bytes, list)) or "size" not in mask:
        raise ValueError(
            f"{name} is neither null nor an RLE ({{'size': [height, width], 'counts': ...}}) nor a "
            "list of polygons"
        )
    if list(mask["size"]) != size:
        raise ValueError(
            f"{name} has size {list(mask['size'])}, but the video has [height, width] = {size}"
        )


def _name_of_mask(name: str, frame: int, video: dict) -> str:
    return f"the mask of {name} in frame {frame} of video {video['id']!r}"

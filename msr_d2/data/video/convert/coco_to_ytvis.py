"""COCO json with an entry per frame and track ids -> YouTube-VIS json with an entry per video.

Boxes, masks, areas, crowd flags, categories and track ids are kept, here and on the way back
(``ytvis_to_coco``). Fields of single frames that the target format has no place for are lost.
"""

from __future__ import annotations

import os
from collections import defaultdict

from ...errors import DatasetError
from .content import Content, check_ytvis, read_content

TRACK_KEYS = ("track_id", "instance_id")
FRAME_KEYS = ("frame_id", "frame_index")
_VIDEO_FIELDS = ("id", "height", "width", "length", "file_names")


def coco_frames_to_ytvis(source: Content | str | os.PathLike) -> dict:
    """Join the frames of each video, and the boxes of each track, of a COCO json.

    Images need ``video_id`` and ``frame_id`` (or ``frame_index``), which orders them; annotations
    need ``track_id`` (or ``instance_id``), unique within a video. Masks are optional. Entries of a
    ``videos`` list with the same ids are taken over (e.g. ``name``).

    Annotation ids are the track ids if these are positive integers that no two videos share,
    otherwise 1..N with the source's id as ``track_id``. Videos whose ids are no integers are
    numbered and get the id as ``name``.

    Args:
        source: path of the json file, or what it holds; not modified.

    Raises:
        DatasetError: names the image or annotation, what is missing, and the cure.
    """
    coco, where = read_content(source, "images")
    frames = _frames_of_videos(coco["images"], where)
    videos = [_video(number, frames[number], coco, where) for number in frames]
    place = {image["id"]: (n, t) for n, images in frames.items() for t, image in enumerate(images)}
    tracks = _tracks(coco.get("annotations") or [], place, where)
    with_masks = any(item.get("segmentation") for item in coco.get("annotations") or [])
    annotations = [
        _object(key, members, frames[key[0]], with_masks, where) for key, members in tracks.items()
    ]
    _number(videos, annotations)
    content = {"info": coco.get("info", {}), "videos": videos}
    content.update(categories=coco["categories"], annotations=annotations)
    return check_ytvis(content, where)


def _frames_of_videos(images: list[dict], where: str) -> dict[object, list[dict]]:
    """Images by video, in the order of their frames; videos in the order of the file."""
    frames: dict[object, list[dict]] = defaultdict(list)
    seen = set()
    for image in images:
        keys = ("id", "file_name", "height", "width", "video_id")
        missing = [key for key in keys if image.get(key) is None]
        missing += [] if _first_key(image, FRAME_KEYS) else [" or ".join(FRAME_KEYS)]
        if missing:
            raise DatasetError(
                f"{where}: image {image.get('id')!r} ('{image.get('file_name')}') has no "
                f"{', '.join(missing)}. Every image needs the id of its video and its position "
                "in it."
            )
        if image["id"] in seen:
            raise DatasetError(f"{where}: two images have the id {image['id']!r}.")
        seen.add(image["id"])
        frames[image["video_id"]].append(image)
    for number, members in frames.items():
        frames[number] = _in_order(members, f"{where}: video {number!r}")
    return dict(frames)


def _in_order(images: list[dict], where: str) -> list[dict]:
    positions = [image[_first_key(image, FRAME_KEYS)] for image in images]
    bad = [p for p in positions if isinstance(p, bool) or not isinstance(p, int)]
    if bad:
        raise DatasetError(f"{where} has a frame with position {bad[0]!r}; it must be an integer.")
    if len(set(positions)) != len(positions):
        twice = next(p for p in positions if positions.count(p) > 1)
        names = [image["file_name"] for image, p in zip(images, positions) if p == twice]
        raise DatasetError(
            f"{where} has two frames at position {twice} ('{names[0]}' and '{names[1]}'). Number "
            "the frames of a video, or give the images of different videos different video_ids."
        )
    images = [image for _, image in sorted(zip(positions, images), key=lambda pair: pair[0])]
    sizes = {(image["height"], image["width"]): image["file_name"] for image in images}
    if len(sizes) > 1:
        (a, first), (b, other), *_ = sizes.items()
        raise DatasetError(
            f"{where} has frames of different sizes: {a} ('{first}') and {b} ('{other}'). Resize "
            "the frames, or make them two videos."
        )
    return images


def _video(number: object, images: list[dict], coco: dict, where: str) -> dict:
    known = [video for video in coco.get("videos") or [] if video.get("id") == number]
    extra = {k: v for k, v in (known[0] if known else {}).items() if k not in _VIDEO_FIELDS}
    return {
        "id": number,
        "height": images[0]["height"],
        "width": images[0]["width"],
        "length": len(images),
        "file_names": [image["file_name"] for image in images],
        **extra,
    }


def _tracks(annotations: list[dict], place: dict, where: str) -> dict[tuple, list[dict]]:
    """Annotations by (video, track), in the order of the file."""
    tracks: dict[tuple, list[dict]] = defaultdict(list)
    for annotation in annotations:
        name = f"{where}: annotation {annotation.get('id')!r}"
        key = _first_key(annotation, TRACK_KEYS)
        if key is None:
            raise DatasetError(
                f"{name} has no {' or '.join(TRACK_KEYS)}. Without it boxes of different frames "
                "cannot be joined to one object; add the id of the object to every annotation."
            )
        if annotation.get("image_id") not in place:
            raise DatasetError(
                f"{name} has image_id {annotation.get('image_id')!r}, which is not in 'images'. "
                "Add the image or take the annotation out."
            )
        tracks[place[annotation["image_id"]][0], annotation[key]].append(annotation)
    return dict(tracks)


def _object(
    key: tuple, members: list[dict], images: list[dict], with_masks: bool, where: str
) -> dict:
    """One track as an annotation of YouTube-VIS, still with the ids of the source."""
    video, track = key
    where = f"{where}: track {track!r} of video {video!r}"
    categories = {member.get("category_id") for member in members}
    if len(categories) > 1:
        raise DatasetError(
            f"{where} has the categories {sorted(categories, key=repr)}. An object has one class: "
            "correct them, or give the parts different track ids."
        )
    by_frame = _by_frame(members, images, where)
    result = {
        "id": track,
        "video_id": video,
        "category_id": members[0].get("category_id"),
        "iscrowd": int(any(member.get("iscrowd", 0) for member in members)),
        "height": images[0]["height"],
        "width": images[0]["width"],
        "length": len(images),
        "bboxes": [item.get("bbox") for item in by_frame],
        "areas": [item.get("area") for item in by_frame],
    }
    if with_masks:
        result["segmentations"] = [item.get("segmentation") or None for item in by_frame]
    return result


def _by_frame(members: list[dict], images: list[dict], where: str) -> list[dict]:
    """The annotation of each frame, an empty one where there is none."""
    found: dict[object, dict] = {}
    names = {image["id"]: image["file_name"] for image in images}
    for member in members:
        place = f"in frame '{names[member['image_id']]}' (annotation {member.get('id')!r})"
        if member["image_id"] in found:
            raise DatasetError(
                f"{where} has two boxes {place}. Give different objects different track ids."
            )
        if member.get("bbox") is None and not member.get("segmentation"):
            raise DatasetError(f"{where} has no bbox [x, y, width, height] {place}. Add it.")
        found[member["image_id"]] = member
    return [found.get(image["id"], {}) for image in images]


def _number(videos: list[dict], annotations: list[dict]) -> None:
    """Make ids that are no integers, or not unique, into 1..N, in place."""
    if not all(_is_id(video["id"]) for video in videos):
        numbers = {video["id"]: i + 1 for i, video in enumerate(videos)}
        for video in videos:
            video.setdefault("name", str(video["id"]))
            video["id"] = numbers[video["id"]]
        for annotation in annotations:
            annotation["video_id"] = numbers[annotation["video_id"]]
    ids = [annotation["id"] for annotation in annotations]
    if not all(map(_is_id, ids)) or len(set(ids)) < len(ids):
        for i, annotation in enumerate(annotations):
            annotation["id"], annotation["track_id"] = i + 1, annotation["id"]


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _first_key(item: dict, keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if item.get(key) is not None), None)

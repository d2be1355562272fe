"""Reading YouTube-VIS annotations: one entry per object, with lists over the frames.

``segmentations`` may be missing: boxes are all that box supervision needs. Masks are kept as they
stand in the file and are neither decoded nor checked here, but where masks are trained on.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict

from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from ..coco import class_names, read_annotation_json
from ..errors import DatasetError

logger = logging.getLogger(__name__)


def load_ytvis_instances(json_file: str, image_root: str, name: str) -> list[dict]:
    """Load a YouTube-VIS json file as one dict per video, sorted by video id.

    Sets ``thing_classes`` and ``thing_dataset_id_to_contiguous_id`` of the metadata of `name`.

    Args:
        json_file: annotation file; without ``annotations`` (as the public validation sets) the
            videos have no objects.
        image_root: folder that the ``file_names`` entries are relative to.
        name: name under which the data set is registered.

    Returns:
        for each video ``file_names`` (length T), ``height``, ``width``, ``length``, ``video_id``
        and ``annotations``: for each of its T frames a list of dicts with ``id`` (of the object,
        the same in all frames), ``category_id`` (from 0), ``iscrowd``, ``bbox``, ``bbox_mode`` and,
        where the file has it, ``segmentation``. A frame whose box is null lacks the object.

    Raises:
        DatasetError: if the file is missing or is not valid; names video, annotation and cure.
    """
    content = read_annotation_json(json_file, name, "videos")
    to_contiguous = _set_classes(content, json_file, name)
    _check_video_ids(content["videos"], json_file)
    objects = _group_by_video(content, json_file)
    dicts = []
    for video in sorted(content["videos"], key=lambda video: video["id"]):
        record = _video_record(video, image_root, json_file)
        record["annotations"] = [[] for _ in range(record["length"])]
        for annotation in objects[video["id"]]:
            _add_object(annotation, record, to_contiguous, json_file)
        dicts.append(record)
    logger.info("Loaded %d videos of '%s' from %s", len(dicts), name, json_file)
    return dicts


def _set_classes(content: dict, json_file: str, name: str) -> dict[int, int]:
    ids = sorted(category["id"] for category in content["categories"])
    if len(set(ids)) != len(ids):
        raise DatasetError(f"'{json_file}' has two categories with the same id; ids: {ids}.")
    metadata, names = MetadataCatalog.get(name), class_names(content)
    known = metadata.get("thing_classes")
    if known is not None and list(known) != names:
        raise DatasetError(
            f"dataset '{name}': the categories of '{json_file}' ({len(names)}: {names}) are not "
            f"the {len(known)} of this data set. Register the file under a name of its own with "
            "DATASETS.REGISTER."
        )
    metadata.thing_classes = names
    metadata.thing_dataset_id_to_contiguous_id = {c: i for i, c in enumerate(ids)}
    return metadata.thing_dataset_id_to_contiguous_id


def _check_video_ids(videos: list[dict], json_file: str) -> None:
    counts = Counter(video.get("id") for video in videos)
    for number, count in counts.items():
        if not isinstance(number, int) or count > 1:
            raise DatasetError(
                f"'{json_file}' has a video with id {number!r}, which is used twice or is no "
                "integer; number the videos 1..N."
            )


def _group_by_video(content: dict, json_file: str) -> dict[int, list[dict]]:
    video_ids = {video["id"] for video in content["videos"]}
    objects, seen, strays = defaultdict(list), set(), 0
    for annotation in content.get("annotations") or []:
        number = annotation.get("id")
        if not isinstance(number, int) or number < 0 or number in seen:
            raise DatasetError(
                f"'{json_file}' has an annotation with id {number!r}, which is used twice or is no "
                "non-negative integer; number the annotations 1..N."
            )
        seen.add(number)
        if annotation.get("video_id") in video_ids:
            objects[annotation["video_id"]].append(annotation)
        else:
            strays += 1
    if strays:
        logger.warning("%d annotations of '%s' belong to no video in it.", strays, json_file)
    return objects


def _video_record(video: dict, image_root: str, json_file: str) -> dict:
    where = f"video id {video['id']} of '{json_file}'"
    missing = [key for key in ("file_names", "height", "width") if key not in video]
    if missing:
        raise DatasetError(f"{where} has no {missing}.")
    names = video["file_names"]
    if not isinstance(names, list) or not names:
        raise DatasetError(f"{where} has no frames: 'file_names' is {names!r}. Remove the video.")
    if video.get("length", len(names)) != len(names):
        raise DatasetError(
            f"{where} has length {video['length']}, but {len(names)} file_names "
            f"(first: '{names[0]}'). Correct one of them."
        )
    return {
        "file_names": [os.path.join(image_root, name) for name in names],
        "height": video["height"],
        "width": video["width"],
        "length": len(names),
        "video_id": video["id"],
    }


def _add_object(annotation: dict, record: dict, to_contiguous: dict, json_file: str) -> None:
    """Spread one object over the frames of its video."""
    where = f"annotation {annotation['id']} (video {record['video_id']}) in '{json_file}'"
    category = annotation.get("category_id")
    if category not in to_contiguous:
        raise DatasetError(
            f"{where} has category_id={category}, which is not in 'categories' "
            f"(ids {sorted(to_contiguous)})."
        )
    if not isinstance(annotation.get("bboxes"), list):
        raise DatasetError(
            f"{where} has no list 'bboxes'. Add one with [x, y, width, height] or null per frame."
        )
    _check_lengths(annotation, record, where)
    common = {
        "id": annotation["id"],
        "category_id": to_contiguous[category],
        "iscrowd": annotation.get("iscrowd") or 0,
        "bbox_mode": BoxMode.XYWH_ABS,
    }
    masks = annotation.get("segmentations") or [None] * record["length"]
    for frame, box, mask in zip(record["annotations"], annotation["bboxes"], masks):
        if box is not None:
            has_mask = {} if mask is None else {"segmentation": mask}
            frame.append({**common, "bbox": box, **has_mask})


def _check_lengths(annotation: dict, record: dict, where: str) -> None:
    lists = {"bboxes": annotation["bboxes"]}
    if annotation.get("segmentations"):
        lists["segmentations"] = annotation["segmentations"]
    for key, values in lists.items():
        if len(values) != record["length"]:
            raise DatasetError(
                f"{where} has {len(values)} {key} for {record['length']} frames "
                f"(first: '{record['file_names'][0]}'). Write one entry per frame, null where the "
                "object is not visible."
            )

"""Reading YouTube-VIS annotations: one entry per object, with lists over the frames.

``segmentations`` may be missing: boxes are all that box supervision needs. Masks are kept as they
stand in the file and are neither decoded nor checked here, but where masks are trained on; only
where a mask has no box is it looked at, for its box.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict

from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from ..annotations import ZERO_AREA
from ..coco import class_names, read_annotation_json
from ..errors import DatasetError
from ..ytvis_checks import (
    IGNORED_FRAMES,
    check_categories,
    check_ids,
    check_object,
    check_videos,
    mask_box,
)

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
        where the file has it, ``segmentation``. A frame whose box and mask are null lacks the
        object; a mask without a box gets one. Where it is not known whether the object is visible
        (``ignored_frames`` of the file, a mask that gives no box), the frame has ``ignored`` True
        and ``reason`` instead of box and mask.

    Raises:
        DatasetError: if the file is missing or is not valid; names video, annotation and cure.
    """
    content = read_annotation_json(json_file, name, "videos")
    where = f"'{json_file}'"
    to_contiguous = _set_classes(content, json_file, name)
    check_videos(content["videos"], where)
    objects = _group_by_video(content, where)
    dicts = []
    for video in sorted(content["videos"], key=lambda video: video["id"]):
        record = _video_record(video, image_root)
        for annotation in objects[video["id"]]:
            check_object(annotation, video, to_contiguous, where)
            _add_object(annotation, record, to_contiguous)
        dicts.append(record)
    logger.info("Loaded %d videos of '%s' from %s", len(dicts), name, json_file)
    return dicts


def _set_classes(content: dict, json_file: str, name: str) -> dict[int, int]:
    check_categories(content["categories"], f"'{json_file}'")
    ids = sorted(category["id"] for category in content["categories"])
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


def _group_by_video(content: dict, where: str) -> dict[int, list[dict]]:
    annotations = content.get("annotations") or []
    check_ids(annotations, "annotation", where)
    video_ids = {video["id"] for video in content["videos"]}
    objects, strays = defaultdict(list), 0
    for annotation in annotations:
        number = annotation.get("video_id")
        if isinstance(number, int) and number in video_ids:
            objects[number].append(annotation)
        else:
            strays += 1
    if strays:
        logger.warning("%d annotations of %s belong to no video in it.", strays, where)
    return objects


def _video_record(video: dict, image_root: str) -> dict:
    length = len(video["file_names"])
    return {
        "file_names": [os.path.join(image_root, name) for name in video["file_names"]],
        "height": video["height"],
        "width": video["width"],
        "length": length,
        "video_id": video["id"],
        "annotations": [[] for _ in range(length)],
    }


def _add_object(annotation: dict, record: dict, to_contiguous: dict[int, int]) -> None:
    """Spread one object over the frames of its video."""
    nothing = [None] * record["length"]
    common = {
        "id": annotation["id"],
        "category_id": to_contiguous[annotation["category_id"]],
        "iscrowd": annotation.get("iscrowd") or 0,
    }
    size, ignored = (record["height"], record["width"]), annotation.get(IGNORED_FRAMES) or ()
    boxes = nothing if annotation.get("bboxes") is None else annotation["bboxes"]
    masks = annotation.get("segmentations") or nothing
    for t, (frame, box, mask) in enumerate(zip(record["annotations"], boxes, masks)):
        if t in ignored:
            entry = {"ignored": True, "reason": f"listed in {IGNORED_FRAMES}"}
        else:
            entry = _frame_entry(box, mask, size)
        if entry is not None:
            frame.append({**common, **entry})


def _frame_entry(box: object, mask: object, size: tuple[int, int]) -> dict | None:
    """What an object has in one frame; None where it is absent."""
    if (box is None or box == []) and mask:
        box, problem = mask_box(mask, *size)
        if problem not in (None, ZERO_AREA):
            return {"ignored": True, "reason": f"no box, and a mask that is no help: {problem}"}
    if box is None or box == []:
        return None
    has_mask = {"segmentation": mask} if mask else {}
    return {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, **has_mask}

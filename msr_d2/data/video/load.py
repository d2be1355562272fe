"""The training set of a video model: videos and images of several sets with common classes."""

from __future__ import annotations

import logging
from collections import Counter

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.build import filter_images_with_only_crowd_annotations

from ..checks import check_dataset_dicts, thing_classes
from ..errors import DatasetError
from .categories import map_classes
from .checks import check_video_dicts, without_empty_videos
from .supervision import Supervision

logger = logging.getLogger(__name__)


def load_clip_dicts(cfg: CfgNode) -> list[dict]:
    """Videos and images of DATASETS.TRAIN, checked, in the classes of the last of these sets.

    Each has the name of its data set as ``source``. Where a set is trained with boxes, its
    segmentations are dropped unread.

    Raises:
        DatasetError: if a set has nothing to train on, or no class in common with the last one.
        ValueError: for a malformed MODEL.MASK_FREE.DATASET_SUPERVISION, or one that names a data
            set which is not trained on.
    """
    supervision, names = Supervision.from_config(cfg), cfg.DATASETS.TRAIN
    supervision.check_names(names)
    filter_empty = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    result = []
    for name in names:
        with_masks = supervision.of(name) == "mask"
        dicts = _load_set(name, with_masks)
        dicts = _to_classes_of(dicts, name, names[-1])
        if filter_empty:
            dicts = _without_empty(dicts, name)
        if not dicts:
            raise DatasetError(
                f"dataset '{name}' cannot be trained on: none of its videos or images has an "
                "object that is not marked iscrowd. Take it out of DATASETS.TRAIN, or annotate it; "
                "with DATALOADER.FILTER_EMPTY_ANNOTATIONS False it is kept."
            )
        result += [{**record, "source": name} for record in dicts]
    return result


def _load_set(name: str, with_masks: bool) -> list[dict]:
    dicts = DatasetCatalog.get(name)
    videos = [record for record in dicts if "file_names" in record]
    images = [record for record in dicts if "file_names" not in record]
    if videos:
        videos = check_video_dicts(videos, name, with_masks)
    if images:
        images = [_image(record, with_masks) for record in images]
        cure = "MODEL.MASK_FREE.SUPERVISION box"
        images = check_dataset_dicts(images, name, with_masks, boxes_only=cure)
    return videos + images


def _image(record: dict, with_masks: bool) -> dict:
    annotations = record.get("annotations", [])
    if not with_masks:
        annotations = [{k: v for k, v in x.items() if k != "segmentation"} for x in annotations]
    return {**record, "annotations": annotations}


def _without_empty(dicts: list[dict], name: str) -> list[dict]:
    videos = [record for record in dicts if "file_names" in record]
    images = [record for record in dicts if "file_names" not in record]
    videos = without_empty_videos(videos, name)
    return videos + (filter_images_with_only_crowd_annotations(images) if images else [])


def _to_classes_of(dicts: list[dict], name: str, target: str) -> list[dict]:
    """The same records in the classes of the set `target`; reports what is left out."""
    source_classes, target_classes = thing_classes(name), thing_classes(target)
    if source_classes == target_classes or None in (source_classes, target_classes):
        return dicts
    mapping = map_classes(source_classes, target_classes)
    if not mapping:
        raise DatasetError(
            f"datasets '{name}' and '{target}' have no class in common, so they cannot be mixed: "
            f"{source_classes} and {target_classes}. Rename the categories of one of them."
        )
    left_out: Counter[int] = Counter()
    mapped = [_map_record(record, mapping, left_out) for record in dicts]
    if left_out:
        classes = ", ".join(sorted(source_classes[i] for i in left_out))
        logger.warning(
            "%d annotations of dataset '%s' are left out, because '%s' does not have their "
            "classes: %s.",
            *(sum(left_out.values()), name, target, classes),
        )
    return mapped


def _map_record(record: dict, mapping: dict[int, int], left_out: Counter[int]) -> dict:
    def mapped(annotations: list[dict]) -> list[dict]:
        left_out.update(x["category_id"] for x in annotations if x["category_id"] not in mapping)
        return [
            {**x, "category_id": mapping[x["category_id"]]}
            for x in annotations
            if x["category_id"] in mapping
        ]

    annotations = record["annotations"]
    if "file_names" in record:
        return {**record, "annotations": [mapped(frame) for frame in annotations]}
    return {**record, "annotations": mapped(annotations)}

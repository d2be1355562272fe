"""Reading COCO instance annotations.

The result equals that of detectron2's ``load_coco_json`` on a valid file. It exists beside it
because files of users are not always valid: here every message names the file and the annotation,
annotation ids are kept, and empty or malformed segmentations are reported instead of lost.
"""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict

from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from .annotations import NO_MASK, normalize_segmentation
from .errors import DatasetError
from .report import SkipReport

logger = logging.getLogger(__name__)


def load_coco_instances(json_file: str, image_root: str, name: str) -> list[dict]:
    """Load a COCO json file as detectron2 dataset dicts, images sorted by id.

    Sets ``thing_classes`` and ``thing_dataset_id_to_contiguous_id`` of the metadata of `name`.

    Args:
        json_file: annotation file in COCO's instances format.
        image_root: folder that the ``file_name`` entries are relative to.
        name: name under which the data set is registered.

    Raises:
        DatasetError: if the file is missing or is not valid COCO json.
    """
    coco = read_annotation_json(json_file, name, "images")
    to_contiguous = _set_classes(coco, json_file, name)
    annotations = _group_by_image(coco, json_file)
    report = SkipReport(name)
    dicts = []
    for image in sorted(coco["images"], key=lambda image: image["id"]):
        record = _image_record(image, image_root, json_file)
        record["annotations"] = [
            _convert(annotation, record, to_contiguous, json_file, report)
            for annotation in annotations[image["id"]]
        ]
        record["annotations"] = [x for x in record["annotations"] if x is not None]
        dicts.append(record)
    report.log(cure=f"Correct them in '{json_file}' if they matter.")
    logger.info("Loaded %d images of '%s' from %s", len(dicts), name, json_file)
    return dicts


def read_annotation_json(json_file: str, name: str, units: str) -> dict:
    """The parsed content of an annotation file, with its lists checked to be there.

    Args:
        json_file: path of the file.
        name: of the data set, for messages.
        units: the list of what is annotated, "images" (COCO) or "videos" (YouTube-VIS).

    Raises:
        DatasetError: if the file is missing, is not json, or lacks `units` or categories.
    """
    if not PathManager.isfile(json_file):
        raise DatasetError(
            f"dataset '{name}': the annotation file '{json_file}' does not exist. Create or "
            "download it, or point the environment variable DETECTRON2_DATASETS (built-in names) "
            "or the key DATASETS.REGISTER (your own) at the right folder."
        )
    try:
        with PathManager.open(json_file, "r") as file:
            content = json.load(file)
    except ValueError as error:  # also UnicodeDecodeError
        raise DatasetError(f"dataset '{name}': '{json_file}' is not json: {error}") from error
    missing = [key for key in (units, "categories") if not _is_list(content, key)]
    if missing or not content["categories"]:
        format_name = {"images": "COCO's format", "videos": "the format of YouTube-VIS"}[units]
        raise DatasetError(
            f"dataset '{name}': '{json_file}' has no list {missing or ['categories']}; "
            f"{format_name} is {{'{units}': [...], 'annotations': [...], 'categories': [...]}}."
        )
    return content


def class_names(coco: dict) -> list[str]:
    """Class names in the order of their contiguous ids, i.e. sorted by category id."""
    return [c["name"] for c in sorted(coco["categories"], key=lambda c: c["id"])]


def _is_list(coco: object, key: str) -> bool:
    return isinstance(coco, dict) and isinstance(coco.get(key), list)


def _set_classes(coco: dict, json_file: str, name: str) -> dict[int, int]:
    ids = sorted(category["id"] for category in coco["categories"])
    if len(set(ids)) != len(ids):
        raise DatasetError(f"'{json_file}' has two categories with the same id; ids: {ids}.")
    metadata = MetadataCatalog.get(name)
    metadata.thing_classes = class_names(coco)
    metadata.thing_dataset_id_to_contiguous_id = {c: i for i, c in enumerate(ids)}
    return metadata.thing_dataset_id_to_contiguous_id


def _group_by_image(coco: dict, json_file: str) -> dict[int, list[dict]]:
    image_ids = {image["id"] for image in coco["images"]}
    if len(image_ids) != len(coco["images"]):
        raise DatasetError(f"'{json_file}' has two images with the same id.")
    annotations, seen, strays = defaultdict(list), set(), 0
    for annotation in coco.get("annotations", []):
        if annotation.get("id") in seen:
            raise DatasetError(
                f"'{json_file}' has two annotations with id {annotation['id']}; number them 1..N."
            )
        seen.add(annotation.get("id", ("no id", len(seen))))
        if annotation["image_id"] in image_ids:
            annotations[annotation["image_id"]].append(annotation)
        else:
            strays += 1
    if strays:
        logger.warning("%d annotations of '%s' belong to no image in it.", strays, json_file)
    return annotations


def _image_record(image: dict, image_root: str, json_file: str) -> dict:
    missing = [key for key in ("file_name", "height", "width") if key not in image]
    if missing:
        raise DatasetError(f"image id {image['id']} of '{json_file}' has no {missing}.")
    return {
        "file_name": os.path.join(image_root, image["file_name"]),
        "height": image["height"],
        "width": image["width"],
        "image_id": image["id"],
    }


def _convert(
    annotation: dict, record: dict, to_contiguous: dict, json_file: str, report: SkipReport
) -> dict | None:
    """One annotation in detectron2's format, or None if its segmentation is malformed."""
    category = annotation.get("category_id")
    if category not in to_contiguous:
        raise DatasetError(
            f"annotation {annotation.get('id')} in '{json_file}' has category_id={category}, which "
            f"is not in 'categories' (ids {sorted(to_contiguous)})."
        )
    keys = ("id", "iscrowd", "bbox")
    result = {key: annotation[key] for key in keys if key in annotation}
    result.update(category_id=to_contiguous[category], bbox_mode=BoxMode.XYWH_ABS)
    if annotation.get("keypoints"):
        result["keypoints"] = _shift_keypoints(annotation["keypoints"])
    segmentation, problem = normalize_segmentation(annotation.get("segmentation"))
    if segmentation is not None:
        result["segmentation"] = segmentation
    elif problem != NO_MASK:  # boxes without masks are legitimate, a broken mask is not
        report.add(problem, annotation, record)
        return None
    return result


def _shift_keypoints(keypoints: list[float]) -> list[float]:
    # COCO states keypoints as pixel indices; detectron2 wants the centres of these pixels.
    return [value if i % 3 == 2 else value + 0.5 for i, value in enumerate(keypoints)]

"""Checks on data sets that run once, before the training, instead of failing in a worker."""

from __future__ import annotations

import os

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from .annotations import NO_MASK, find_problem, normalize_segmentation
from .coco import class_names, read_annotation_json
from .errors import DatasetError
from .report import SkipReport
from .ytvis_checks import check_categories

# Where a meta-architecture reads its number of classes; one that is not here is not checked.
NUM_CLASSES_KEYS = {
    "GeneralizedRCNN": "MODEL.ROI_HEADS.NUM_CLASSES",
    "LegacyGeneralizedRCNN": "MODEL.ROI_HEADS.NUM_CLASSES",
    "MaskFreeVIS": "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
    "PanopticFPN": "MODEL.ROI_HEADS.NUM_CLASSES",
    "RetinaNet": "MODEL.RETINANET.NUM_CLASSES",
}

# Meta-architectures whose training sets are brought to common classes when they are loaded.
MIXES_CLASSES = ("MaskFreeVIS",)


def check_dataset_dicts(
    dicts: list[dict], name: str, with_masks: bool, boxes_only: str = "MODEL.MASK_ON False"
) -> list[dict]:
    """Leave out annotations that cannot be trained on, and say once which and why.

    Crowd regions pass: detectron2 ignores them in training.

    Args:
        dicts: in detectron2's format; not modified.
        name: of the data set, for messages.
        with_masks: whether the model needs masks.
        boxes_only: the config that does without masks, for a message.

    Returns:
        The same images; those with unusable annotations are copies without them.

    Raises:
        DatasetError: if masks are needed and not a single annotation has one.
    """
    report = SkipReport(name)
    checked = [_check_image(record, with_masks, report) for record in dicts]
    total = sum(len(record.get("annotations", ())) for record in dicts)
    if total and report.counts.get(NO_MASK) == total:
        raise DatasetError(
            f"dataset '{name}': none of its {total} annotations has a segmentation, but the model "
            f"needs masks. Add them, or train boxes only with {boxes_only}."
        )
    report.log(cure="Training goes on without them; correct the annotation file if they matter.")
    return checked


def _check_image(record: dict, with_masks: bool, report: SkipReport) -> dict:
    if "height" not in record or "width" not in record:  # the mapper will know, and check
        return record
    annotations = record.get("annotations", [])
    kept, problems = usable_annotations(annotations, record["height"], record["width"], with_masks)
    for annotation, problem in problems:
        report.add(problem, annotation, record)
    return {**record, "annotations": kept} if problems else record


def usable_annotations(
    annotations: list[dict], height: int, width: int, with_masks: bool
) -> tuple[list[dict], list[tuple[dict, str]]]:
    """Split annotations into those that can be used, their masks normalized, and the others.

    Args:
        annotations: of one image, in detectron2's format; not modified.
        height, width: of the image in pixels.
        with_masks: whether masks are needed.

    Returns:
        The usable ones (crowd regions among them), and (annotation, reason) for the rest.
    """
    usable, problems = [], []
    for annotation in annotations:
        checked, problem = annotation, None
        if annotation.get("iscrowd", 0) == 0:
            if with_masks and "segmentation" in annotation:
                segmentation, problem = normalize_segmentation(annotation["segmentation"])
                checked = {**annotation, "segmentation": segmentation}
            problem = problem or find_problem(checked, height, width, with_masks)
        if problem is None:
            usable.append(checked)
        else:
            problems.append((annotation, problem))
    return usable, problems


def check_num_classes(cfg: CfgNode) -> None:
    """Stop when the data sets and the model disagree about the classes.

    detectron2 trains without a word when NUM_CLASSES is too small by one (the last class becomes
    background). Only annotation files of sets without known class names are read. A model of
    ``MIXES_CLASSES`` is trained in the classes of the last of DATASETS.TRAIN, the others may
    differ.

    Raises:
        DatasetError: names the sets, both numbers and the cure.
    """
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    classes = {name: thing_classes(name) for name in names}
    classes = {name: c for name, c in classes.items() if c is not None}
    if cfg.MODEL.META_ARCHITECTURE in MIXES_CLASSES:
        for name in set(cfg.DATASETS.TRAIN[:-1]) - {*cfg.DATASETS.TRAIN[-1:], *cfg.DATASETS.TEST}:
            classes.pop(name, None)
    key = NUM_CLASSES_KEYS.get(cfg.MODEL.META_ARCHITECTURE)
    if key is None or not classes:
        return
    first = next(iter(classes))
    for name, names_of_set in classes.items():
        if names_of_set != classes[first]:
            raise DatasetError(_different_classes(first, classes[first], name, names_of_set))
    num_classes = _get(cfg, key)
    if num_classes != len(classes[first]):
        raise DatasetError(
            f"dataset '{first}' has {len(classes[first])} classes, but {key} is {num_classes}. "
            f"Set {key} {len(classes[first])}."
        )


def thing_classes(name: str) -> list[str] | None:
    """Class names of a registered data set, or None where they cannot be known without loading.

    Raises:
        DatasetError: if `name` is not registered, or its annotation file is missing or broken.
    """
    if name not in DatasetCatalog.list():
        raise DatasetError(
            f"dataset '{name}' is not registered. Registered names are: "
            f"{', '.join(sorted(DatasetCatalog.list()))}. Register your own with DATASETS.REGISTER "
            "\"[['name', 'annotations.json', 'image folder']]\"."
        )
    metadata = MetadataCatalog.get(name)
    if metadata.get("thing_classes") is not None:
        return list(metadata.thing_classes)
    units = {"coco": "images", "ytvis": "videos"}.get(metadata.get("evaluator_type"))
    if units is None or metadata.get("json_file") is None:
        return None
    json_file = os.fspath(metadata.json_file)
    content = read_annotation_json(json_file, name, units)
    if units == "videos":
        check_categories(content["categories"], f"'{json_file}'")
    return class_names(content)


def _different_classes(first: str, classes: list[str], other: str, others: list[str]) -> str:
    only = [sorted(set(a) - set(b)) for a, b in ((classes, others), (others, classes))]
    detail = f"only in the first: {only[0]}, only in the second: {only[1]}"
    if not any(only):
        detail = "the same names in another order (order follows the category ids)"
    return (
        f"datasets '{first}' ({len(classes)} classes) and '{other}' ({len(others)} classes) have "
        f"different classes: {detail}. Give their annotation files the same 'categories'."
    )


def _get(cfg: CfgNode, key: str) -> object:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg

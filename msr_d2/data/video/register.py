"""Registering video data sets; the files are read when a set is used."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..errors import DatasetError
from .ytvis import load_ytvis_instances

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20
_OVERLAP = 64  # longer than the pattern, white space included


def register_ytvis_instances(
    name: str, json_file: str, image_root: str, thing_classes: Sequence[str] | None = None
) -> None:
    """Register a data set in the format of YouTube-VIS.

    Registering the same name with the same paths again is harmless.

    Args:
        name: for DATASETS.TRAIN and DATASETS.TEST.
        json_file: annotations; boxes are enough (see :func:`load_ytvis_instances`).
        image_root: folder that the ``file_names`` entries are relative to.
        thing_classes: class names, where they are known without reading the file, in the order of
            their ids, which are then 1..N.

    Raises:
        DatasetError: if the name is taken by other paths.
    """
    if name in DatasetCatalog.list():
        taken = MetadataCatalog.get(name)
        paths = taken.get("json_file"), taken.get("image_root")
        if paths != (json_file, image_root):
            raise DatasetError(
                f"dataset name '{name}' is already registered with {paths[0]} and {paths[1]}; "
                f"choose another name for {json_file} and {image_root}."
            )
        return
    DatasetCatalog.register(name, lambda: load_ytvis_instances(json_file, image_root, name))
    metadata = MetadataCatalog.get(name)
    metadata.set(json_file=json_file, image_root=image_root, evaluator_type="ytvis")
    if thing_classes is not None:
        contiguous = {i + 1: i for i in range(len(thing_classes))}
        metadata.thing_classes = list(thing_classes)
        metadata.thing_dataset_id_to_contiguous_id = contiguous


def register_vis_tiny(root: str) -> tuple[str, str, str, str]:
    """Register a folder in the layout of vis_tiny, a small set of real clips.

    Args:
        root: folder with ``{train,valid,mosaic_train,mosaic_valid}.json`` and ``JPEGImages``.
            Names that are registered for another folder are moved to this one.

    Returns:
        ``vis_tiny_train``, ``vis_tiny_val``, ``vis_tiny_mosaic_train``, ``vis_tiny_mosaic_val``.
    """
    files = {
        "vis_tiny_train": "train.json",
        "vis_tiny_val": "valid.json",
        "vis_tiny_mosaic_train": "mosaic_train.json",
        "vis_tiny_mosaic_val": "mosaic_valid.json",
    }
    for name, file in files.items():
        json_file = os.path.join(root, file)
        if MetadataCatalog.get(name).get("json_file") not in (None, json_file):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        register_ytvis_instances(name, json_file, os.path.join(root, "JPEGImages"))
    return tuple(files)


def is_ytvis_json(json_file: str) -> bool:
    """Whether a file is in the format of YouTube-VIS rather than COCO's.

    Decided by which comes first, a list ``file_names`` (of a video) or a list ``images``, so that
    large files need not be parsed.
    """
    pattern = re.compile(rb'"(file_names|images)"\s*:\s*\[')
    with PathManager.open(json_file, "rb") as file:
        rest = b""
        while chunk := file.read(_CHUNK):
            match = pattern.search(rest + chunk)
            if match:
                return match.group(1) == b"file_names"
            rest = chunk[-_OVERLAP:]
    return False

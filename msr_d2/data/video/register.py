"""Registering video data sets; the files are read when a set is used."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..catalog import register_json, release_names
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
    new = register_json(name, json_file, image_root, "ytvis", load_ytvis_instances)
    if new and thing_classes is not None:
        metadata = MetadataCatalog.get(name)
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
    json_files = [os.path.join(root, file) for file in files.values()]
    release_names(list(files), json_files)
    for name, json_file in zip(files, json_files):
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

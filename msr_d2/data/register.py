"""Registering data sets in COCO format, and those of a config (only this opens files)."""

from __future__ import annotations

import os

from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from .catalog import register_json, release_names
from .coco import load_coco_instances
from .errors import DatasetError
from .video.register import is_ytvis_json, register_ytvis_instances

_FORM = (
    "DATASETS.REGISTER is a list of [name, annotation json, image folder] or [name, annotation "
    "json, image folder, 'coco' or 'ytvis']"
)


def register_coco(name: str, json_file: str, image_root: str) -> None:
    """Register a data set in COCO's instances format; the file is read when the set is used.

    Registering the same name with the same paths again is harmless.

    Raises:
        DatasetError: if the name is taken by other paths.
    """
    register_json(name, json_file, image_root, "coco", load_coco_instances)


def register_from_config(cfg: CfgNode) -> None:
    """Register every ``[name, annotation json, image folder]`` of DATASETS.REGISTER.

    The format, COCO's or that of YouTube-VIS, is found by looking into the file, unless a fourth
    element states it.

    Raises:
        DatasetError: for a malformed entry, a missing file or folder, or a name that is taken.
    """
    for entry in cfg.DATASETS.REGISTER:
        name, json_file, image_root, kind = _check_entry(entry)
        if not PathManager.isfile(json_file):
            raise DatasetError(f"{_FORM}; for '{name}' there is no file '{json_file}'.")
        if not PathManager.isdir(image_root):
            raise DatasetError(f"{_FORM}; for '{name}' there is no folder '{image_root}'.")
        if kind == "ytvis" or (kind is None and is_ytvis_json(json_file)):
            register_ytvis_instances(name, json_file, image_root)
        else:
            register_coco(name, json_file, image_root)


def _check_entry(entry: object) -> tuple[str, str, str, str | None]:
    is_right = isinstance(entry, (list, tuple)) and len(entry) in (3, 4)
    if not is_right or not all(isinstance(part, str) and part for part in entry):
        raise DatasetError(f"{_FORM}, all of them strings; got {entry!r}.")
    name, json_file, image_root, kind = entry if len(entry) == 4 else (*entry, None)
    if kind not in (None, "coco", "ytvis"):
        raise DatasetError(f"{_FORM}; got {entry!r}.")
    return name, os.path.expanduser(json_file), os.path.expanduser(image_root), kind


def register_coco_tiny(root: str) -> tuple[str, str]:
    """Register a folder in the layout of COCO-tiny as ``coco_tiny_train`` and ``coco_tiny_val``.

    Args:
        root: folder with ``instances_{train,val}.json`` and ``images``. Names that are registered
            for another folder are moved to this one.

    Returns:
        The two names.
    """
    names = "coco_tiny_train", "coco_tiny_val"
    json_files = [os.path.join(root, f"instances_{part}.json") for part in ("train", "val")]
    release_names(names, json_files)
    for name, json_file in zip(names, json_files):
        register_coco(name, json_file, os.path.join(root, "images"))
    return names

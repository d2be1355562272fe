"""Built-in data sets, registered under ``$DETECTRON2_DATASETS`` (default ``./datasets``) on import.

| names | folder | made by |
| --- | --- | --- |
| ``shapes_train``, ``shapes_val`` | ``shapes`` | ``scripts/make_shapes.py`` |
| ``coco_tiny_train``, ``coco_tiny_val`` | ``coco_tiny`` | a small part of COCO 2017 |

The sets of videos are in :mod:`.video.builtin`.

Registration opens no file; class names come from the json file when it is loaded. Of sets that are
published in two layouts it looks which one is there, when this module is imported.
"""

from __future__ import annotations

import os

from .register import register_coco, register_coco_tiny
from .video.builtin import register_builtin_videos


def register_builtin_datasets(root: str) -> None:
    """Register all built-in data sets below the folder `root`; safe to call again."""
    shapes = os.path.join(root, "shapes")
    for part in ("train", "val"):
        json_file = os.path.join(shapes, "annotations", f"instances_{part}.json")
        register_coco(f"shapes_{part}", json_file, os.path.join(shapes, part))
    register_coco_tiny(os.path.join(root, "coco_tiny"))
    register_builtin_videos(root)


register_builtin_datasets(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))

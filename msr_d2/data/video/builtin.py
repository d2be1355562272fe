"""Built-in video data sets, below the same folder as the built-in sets of images.

| names | annotations | frames |
| --- | --- | --- |
| ``ytvis_2019_{train,val,test}`` | ``ytvis_2019/{train,valid,test}.json`` | ``ytvis_2019/{...}/JPEGImages`` |
| ``ytvis_2021_{train,val,test}`` | ``ytvis_2021/{train,valid,test}.json`` | ``ytvis_2021/{...}/JPEGImages`` |
| ``ovis_{train,val,test}`` | ``ovis/annotations/{train,valid,test}.json`` | ``ovis/{...}`` |
| ``shapes_vis_{train,train_masks,val}`` | ``shapes_vis/annotations/instances_{...}.json`` | ``shapes_vis/{train,val}/JPEGImages`` |
| ``vis_tiny_{train,val}``, ``vis_tiny_mosaic_{train,val}`` | ``vis_tiny/{train,valid,...}.json`` | ``vis_tiny/JPEGImages`` |

Two sets may lie in another layout: ``ytvis_*/{...}/instances.json``, as in the archive of 2021, and
``ovis/annotations_{...}.json``. Which one is there is looked up once, at import: files that are put
in the other layout later are found by a new process.

``coco_2017_train_fake`` is the part of COCO 2017 that is mixed with YouTube-VIS 2019, as images:
``coco/annotations/coco2ytvis2019_train.json``, else ``instances_train2017.json``, whose other
classes are left out when it is mixed.
"""  # noqa: E501

from __future__ import annotations

import logging
import os

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..coco import load_coco_instances
from .categories import OVIS, YTVIS_2019, YTVIS_2021
from .register import register_vis_tiny, register_ytvis_instances

logger = logging.getLogger(__name__)

_PARTS = {"train": "train", "val": "valid", "test": "test"}
FAKE_COCO = "coco_2017_train_fake"


def register_builtin_videos(root: str) -> None:
    """Register the sets of the table below `root`; a name that is taken stays as it is.

    No file is opened, but the disk is asked which layout a set has.
    """
    for part, folder in _PARTS.items():
        for year, classes in (("2019", YTVIS_2019), ("2021", YTVIS_2021)):
            base = os.path.join(root, f"ytvis_{year}")
            # The archive of 2021 has the files in the folders of the frames.
            json_file = _first_file(
                os.path.join(base, f"{folder}.json"), os.path.join(base, folder, "instances.json")
            )
            frames = os.path.join(base, folder, "JPEGImages")
            _register(f"ytvis_{year}_{part}", json_file, frames, classes)
        base = os.path.join(root, "ovis")
        json_file = _first_file(
            os.path.join(base, "annotations", f"{folder}.json"),
            os.path.join(base, f"annotations_{folder}.json"),
        )
        _register(f"ovis_{part}", json_file, os.path.join(base, folder), OVIS)
    # The same training clips with boxes only, and with masks to compare with.
    for part in ("train", "train_masks", "val"):
        base = os.path.join(root, "shapes_vis")
        json_file = os.path.join(base, "annotations", f"instances_{part}.json")
        frames = os.path.join(base, part.split("_")[0], "JPEGImages")
        _register(f"shapes_vis_{part}", json_file, frames, None)
    if "vis_tiny_train" not in DatasetCatalog.list():
        register_vis_tiny(os.path.join(root, "vis_tiny"))
    _register_fake_coco(os.path.join(root, "coco"))


def _register(name: str, json_file: str, frames: str, classes: tuple[str, ...] | None) -> None:
    if name in DatasetCatalog.list():  # another library of this process has it
        logger.debug("Data set '%s' is registered already.", name)
        return
    register_ytvis_instances(name, json_file, frames, classes)


def _register_fake_coco(root: str) -> None:
    if FAKE_COCO in DatasetCatalog.list():
        return
    folder = os.path.join(root, "annotations")
    json_file = _first_file(
        os.path.join(folder, "coco2ytvis2019_train.json"),
        os.path.join(folder, "instances_train2017.json"),
    )
    images = os.path.join(root, "train2017")
    DatasetCatalog.register(FAKE_COCO, lambda: load_coco_instances(json_file, images, FAKE_COCO))
    metadata = MetadataCatalog.get(FAKE_COCO)
    metadata.set(json_file=json_file, image_root=images, evaluator_type="coco")


def _first_file(first: str, *others: str) -> str:
    """The first path that exists, or `first`."""
    return next((path for path in (first, *others) if os.path.isfile(path)), first)

"""Single images for box-supervised training: large-scale jitter without padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.structures import BitMasks

from ..mapper import MAPPER_REGISTRY, InstanceMapper
from .augmentation_config import build_flip
from .supervision import Supervision


@MAPPER_REGISTRY.register()
class BoxImageMapper:
    """Images whose masks are given or not, depending on their data set.

    In training an image is flipped, scaled so that it fits into INPUT.MIN_SCALE to MAX_SCALE times
    a square of INPUT.IMAGE_SIZE, and cropped to the square where it is larger. It is not padded:
    the model pads a batch itself, so it knows which pixels are real. With box supervision
    ``segmentation`` is never looked at, and boxes are the annotated ones, scaled and cut off.
    """

    @configurable
    def __init__(self, is_train: bool, *, mappers: dict[str, InstanceMapper], kinds: Supervision):
        """
        Args:
            is_train: for training or inference.
            mappers: for each kind of supervision, "box" and "mask".
            kinds: the supervision of each data set.
        """
        self.is_train = is_train
        self._mappers = mappers
        self._kinds = kinds

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        kinds = Supervision.from_config(cfg)
        if not is_train:
            return {
                "is_train": False,
                "mappers": dict.fromkeys(("box", "mask"), InstanceMapper(cfg, False)),
                "kinds": kinds,
            }
        arguments = {
            "augmentations": large_scale_jitter(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "max_bad_images": cfg.DATALOADER.MAX_BAD_IMAGES,
        }
        with_masks = {
            "use_instance_mask": True,
            "instance_mask_format": "bitmask",
            "recompute_boxes": True,
        }
        mappers = {
            "box": InstanceMapper(True, **arguments),
            "mask": InstanceMapper(True, **arguments, **with_masks),
        }
        return {"is_train": True, "mappers": mappers, "kinds": kinds}

    def __call__(self, dataset_dict: dict) -> dict | None:
        """
        Args:
            dataset_dict: one image in detectron2's format, in training with ``source``.

        Returns:
            As :class:`InstanceMapper`, in training with ``supervision`` and ``source``, and with
            ``gt_masks`` only where the supervision is "mask"; None for a bad training image.

        Raises:
            ValueError: for a video.
        """
        if "file_names" in dataset_dict:
            raise ValueError(
                f"video {dataset_dict.get('video_id')} of '{dataset_dict.get('source')}' cannot be "
                "used as an image; for videos INPUT.DATASET_MAPPER_NAME must not be "
                "'coco_instance_lsj'."
            )
        source = dataset_dict.get("source", "")
        kind = self._kinds.of(source)
        item = self._mappers[kind](dataset_dict)
        if item is None or not self.is_train:
            return item
        instances = item["instances"]
        if kind == "mask" and not len(instances):  # an image without objects has no polygons
            instances.gt_masks = BitMasks(torch.zeros(0, *instances.image_size, dtype=torch.bool))
        return {**item, "supervision": kind, "source": source}


def large_scale_jitter(cfg: CfgNode) -> Sequence[T.Augmentation]:
    """INPUT.RANDOM_FLIP, IMAGE_SIZE, MIN_SCALE and MAX_SCALE as augmentations of single images."""
    node = cfg.INPUT
    vertical = node.RANDOM_FLIP == "vertical"
    flip = [T.RandomFlip(horizontal=not vertical, vertical=vertical)]
    side = node.IMAGE_SIZE
    return [
        *(flip if build_flip(node.RANDOM_FLIP) else []),
        T.ResizeScale(node.MIN_SCALE, node.MAX_SCALE, side, side),
        T.FixedSizeCrop((side, side), pad=False),
    ]

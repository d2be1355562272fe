"""A trained model as a function from pictures to instances."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.structures import Instances

from ..data import DatasetError
from ..data.checks import NUM_CLASSES_KEYS, thing_classes
from ..data.coco import read_annotation_json
from ..data.legacy_resize import LegacyResizeShortestEdge
from ..mask_scoring import MaskScoringTTA
from .checkpointer import SafeCheckpointer

logger = logging.getLogger(__name__)


class Predictor:
    """Like detectron2's ``DefaultPredictor``, for several pictures at a time.

    Pictures are resized as ``INPUT.{MIN,MAX}_SIZE_TEST`` say; the results have the size of the
    original pictures. With ``TEST.AUG.ENABLED`` the test-time augmentation is used. Weights that
    leave a part of the model random are refused.
    """

    def __init__(self, cfg: CfgNode, *, allow_random_weights: bool = False):
        """
        Args:
            cfg: with MODEL.WEIGHTS, as from :func:`msr_d2.engine.load_cfg`.
            allow_random_weights: without MODEL.WEIGHTS use the initial values, whose predictions
                mean nothing, instead of refusing.

        Raises:
            ValueError: without weights, for weights of another model, or an unknown INPUT.FORMAT.
        """
        self.cfg = cfg.clone()
        self.model = load_model(self.cfg, allow_random_weights)
        if self.cfg.TEST.AUG.ENABLED:
            self.model = MaskScoringTTA(self.cfg, self.model).eval()
        self._resize = size_for_test(self.cfg)

    def __call__(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Detect the objects of some pictures in one forward pass.

        Args:
            images: (H, W, 3) uint8 arrays in BGR order, of any sizes.

        Returns:
            For each picture its instances on the CPU, in pixels of that picture.
        """
        if not images:
            return []
        with torch.no_grad():
            outputs = self.model([self._prepare(image) for image in images])
        return [output["instances"].to("cpu") for output in outputs]

    def _prepare(self, image: np.ndarray) -> dict:
        if self.cfg.INPUT.FORMAT == "RGB":
            image = image[:, :, ::-1]
        height, width = image.shape[:2]
        if not self.cfg.TEST.AUG.ENABLED:  # it resizes by itself
            image = self._resize.get_transform(image).apply_image(image)
        tensor = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}


def load_model(cfg: CfgNode, allow_random_weights: bool) -> torch.nn.Module:
    """The model of a config with MODEL.WEIGHTS loaded, ready for inference.

    Args:
        cfg: the config; the model may keep it.
        allow_random_weights: see :class:`Predictor`.

    Raises:
        ValueError: without weights, for weights of another model, or an unknown INPUT.FORMAT.
    """
    if cfg.INPUT.FORMAT not in ("BGR", "RGB"):
        raise ValueError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}: use BGR or RGB")
    if not cfg.MODEL.WEIGHTS and not allow_random_weights:
        raise ValueError(
            "MODEL.WEIGHTS is empty, so the model would be random: name a checkpoint, for "
            "example the model_final.pth in the output folder of a training."
        )
    model = build_model(cfg).eval()
    if cfg.MODEL.WEIGHTS:
        SafeCheckpointer(model, complete=True).load(cfg.MODEL.WEIGHTS)
    else:
        logger.warning("MODEL.WEIGHTS is empty: the model is random, its output means nothing.")
    return model


def size_for_test(cfg: CfgNode) -> T.Augmentation:
    """Resizing as INPUT.{MIN,MAX}_SIZE_TEST say."""
    resize = LegacyResizeShortestEdge if cfg.MODEL.LEGACY_BOXES else T.ResizeShortestEdge
    shortest = cfg.INPUT.MIN_SIZE_TEST
    return resize([shortest, shortest], cfg.INPUT.MAX_SIZE_TEST)


def class_table(cfg: CfgNode) -> dict[int, str] | None:
    """Category ids and names of the model's classes, in the order of its outputs.

    They come from the first of DATASETS.TEST and DATASETS.TRAIN that tells them, which needs the
    annotation file unless they are known at registration; annotations are not loaded.

    Args:
        cfg: the config; data sets of DATASETS.REGISTER must have been registered.

    Returns:
        ``{category id: name}``, or None where no data set tells them or their number is not the
        model's.
    """
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        try:
            names = thing_classes(name)
        except DatasetError as error:
            logger.warning("No class names from data set '%s': %s", name, error)
            continue
        if names is None:
            continue
        expected = _num_classes(cfg)
        if expected in (None, len(names)):
            return dict(zip(_category_ids(name, len(names)), names))
        logger.warning(
            "Data set '%s' has %d classes and the model %d: its names are not used.",
            name,
            len(names),
            expected,
        )
    return None


def _num_classes(cfg: CfgNode) -> int | None:
    key = NUM_CLASSES_KEYS.get(cfg.MODEL.META_ARCHITECTURE)
    if key is None:
        return None
    node = cfg
    for part in key.split("."):
        node = node[part]
    return node


def _category_ids(name: str, num_classes: int) -> list[int]:
    """Category ids of a data set in the order of the contiguous ids."""
    metadata = MetadataCatalog.get(name)
    to_contiguous = metadata.get("thing_dataset_id_to_contiguous_id")
    if to_contiguous:
        return sorted(to_contiguous, key=to_contiguous.get)
    if metadata.get("json_file") and os.path.isfile(metadata.json_file):
        units = "videos" if metadata.get("evaluator_type") == "ytvis" else "images"
        content = read_annotation_json(metadata.json_file, name, units)
        return sorted(category["id"] for category in content["categories"])
    return list(range(num_classes))

"""From a dataset dict to a model input, for every way COCO writes a mask."""

from __future__ import annotations

import logging

import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import Instances, PolygonMasks, polygons_to_bitmask
from detectron2.utils.logger import log_first_n
from fvcore.common.registry import Registry

from .bad_images import BAD_IMAGE_ERRORS, BadImages, describe
from .checks import usable_annotations
from .errors import DatasetError
from .legacy_resize import LegacyResizeShortestEdge

MAPPER_REGISTRY = Registry("MAPPER")
MAPPER_REGISTRY.__doc__ = "Mappers, called as ``mapper(cfg, is_train)``; chosen by INPUT.MAPPER."
MAPPER_REGISTRY.register(DatasetMapper)

logger = logging.getLogger(__name__)

# A polygon may stick out this far (pixels) before it is clipped by rasterising it: annotation
# tools round, and coordinates are scaled.
_TOLERANCE = 1.0


@MAPPER_REGISTRY.register()
class InstanceMapper(DatasetMapper):
    """detectron2's mapper, which takes polygons, run-length masks and mixtures without a switch.

    - `gt_masks` is ``PolygonMasks`` if all objects of an image are polygons inside it, else
      ``BitMasks``. It is there for every training image, also for one without objects.
      With ``INPUT.MASK_FORMAT: bitmask`` it is always ``BitMasks``.
    - An object that a crop or rotation cuts is rasterised, which clips it exactly; detectron2 asks
      for shapely there.
    - Crowd regions and annotations that cannot be used (see :mod:`.annotations`) are left out.
    - A training image that cannot be read, or whose size is not the annotated one, is named and
      counted, and None is returned, for which loaders take another image. In inference it is an
      error, because an image that silently disappears changes the result.
    """

    @configurable
    def __init__(self, is_train: bool, *, max_bad_images: int = 20, **kwargs):
        """
        Args:
            is_train: for training or inference.
            max_bad_images: training stops when more image files than this are bad.
            kwargs: as in :class:`detectron2.data.DatasetMapper`.
        """
        super().__init__(is_train, **kwargs)
        self._bad_images = BadImages(max_bad_images)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        arguments = super().from_config(cfg, is_train)
        arguments["max_bad_images"] = cfg.DATALOADER.MAX_BAD_IMAGES
        if cfg.MODEL.LEGACY_BOXES:
            arguments["augmentations"] = _with_legacy_resize(arguments["augmentations"])
        return arguments

    def __call__(self, dataset_dict: dict) -> dict | None:
        """
        Args:
            dataset_dict: one image in detectron2's dataset format.

        Returns:
            The model input: all keys of `dataset_dict` but its annotations, ``image`` (C, H, W) in
            ``INPUT.FORMAT`` and in training ``instances``; None for a bad training image.

        Raises:
            TooManyBadImagesError: in training, if too many files were bad.
            DatasetError: in inference, if the file is bad.
        """
        file_name = dataset_dict["file_name"]
        try:
            return super().__call__(dataset_dict)
        except BAD_IMAGE_ERRORS as error:
            if not self.is_train:
                raise DatasetError(describe(error, file_name)) from error
            self._bad_images.add(file_name, error)
            return None
        except Exception:
            logger.error("The mapper failed on image '%s'.", file_name)
            raise

    def _transform_annotations(
        self, dataset_dict: dict, transforms: T.TransformList, image_shape: tuple[int, int]
    ) -> None:
        annotations = [
            self._transform_annotation(annotation, transforms, image_shape)
            for annotation in self._usable(dataset_dict)
        ]
        instances = self._to_instances(annotations, image_shape)
        # The box of a cropped object is in general larger than the object that is left.
        if self.recompute_boxes and len(instances):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        dataset_dict["instances"] = utils.filter_empty_instances(instances)

    def _usable(self, dataset_dict: dict) -> list[dict]:
        size = dataset_dict["height"], dataset_dict["width"]
        annotations = [x for x in dataset_dict.pop("annotations") if x.get("iscrowd", 0) == 0]
        usable, problems = usable_annotations(annotations, *size, self.use_instance_mask)
        for annotation, problem in problems:
            message = (
                f"Left out annotation {annotation.get('id', annotation.get('bbox'))} of "
                f"'{dataset_dict['file_name']}': {problem}."
            )
            log_first_n(logging.WARNING, message, key="message")
        return usable

    def _transform_annotation(
        self, annotation: dict, transforms: T.TransformList, image_shape: tuple[int, int]
    ) -> dict:
        annotation = dict(annotation)
        segmentation = annotation.pop("segmentation", None) if self.use_instance_mask else None
        if not self.use_instance_mask:
            annotation.pop("segmentation", None)
        if not self.use_keypoint:
            annotation.pop("keypoints", None)
        if isinstance(segmentation, dict):
            annotation["segmentation"] = segmentation
        annotation = utils.transform_instance_annotations(
            annotation, transforms, image_shape, keypoint_hflip_indices=self.keypoint_hflip_indices
        )
        if isinstance(segmentation, dict):  # now a mask (H, W), read-only where PIL resized it
            annotation["segmentation"] = annotation["segmentation"].astype(bool)
        if isinstance(segmentation, list):
            annotation["segmentation"] = _transform_polygons(segmentation, transforms, image_shape)
        return annotation

    def _to_instances(self, annotations: list[dict], image_shape: tuple[int, int]) -> Instances:
        all_polygons = all(isinstance(x.get("segmentation"), list) for x in annotations)
        mask_format = self.instance_mask_format if all_polygons else "bitmask"
        instances = utils.annotations_to_instances(annotations, image_shape, mask_format)
        if self.use_instance_mask and not annotations:
            instances.gt_masks = PolygonMasks([])
        return instances


def _transform_polygons(
    polygons: list, transforms: T.TransformList, image_shape: tuple[int, int]
) -> list[np.ndarray] | np.ndarray:
    """Transformed polygons, or a mask (H, W) of them if they do not stay inside the image."""
    # apply_coords, not apply_polygons: the latter clips at crops, with shapely.
    points = [
        transforms.apply_coords(np.asarray(polygon, dtype=np.float64).reshape(-1, 2))
        for polygon in polygons
    ]
    height, width = image_shape
    high = np.array([width, height]) + _TOLERANCE
    if all((p >= -_TOLERANCE).all() and (p <= high).all() for p in points):
        return [p.reshape(-1) for p in points]
    return polygons_to_bitmask([p.reshape(-1) for p in points], height, width)


def _with_legacy_resize(augmentations: list) -> list:
    return [
        LegacyResizeShortestEdge(x.short_edge_length, x.max_size, x.sample_style, x.interp)
        if type(x) is T.ResizeShortestEdge
        else x
        for x in augmentations
    ]

"""Datasets, mappers and loaders. Importing it registers the built-in data sets."""

from . import builtin  # noqa: F401  (imported to register)
from .build import build_mapper, build_test_loader, build_train_loader
from .checks import check_dataset_dicts, check_num_classes
from .errors import DatasetError, TooManyBadImagesError
from .mapper import MAPPER_REGISTRY, InstanceMapper
from .register import register_coco, register_coco_tiny, register_from_config
from .video import (
    BoxImageMapper,
    ClipMapper,
    FrameSequence,
    register_vis_tiny,
    register_ytvis_instances,
)

__all__ = [
    "MAPPER_REGISTRY",
    "BoxImageMapper",
    "ClipMapper",
    "DatasetError",
    "FrameSequence",
    "InstanceMapper",
    "TooManyBadImagesError",
    "build_mapper",
    "build_test_loader",
    "build_train_loader",
    "check_dataset_dicts",
    "check_num_classes",
    "register_coco",
    "register_coco_tiny",
    "register_from_config",
    "register_vis_tiny",
    "register_ytvis_instances",
]

"""Datasets, mappers and loaders. Importing it registers the built-in data sets."""

from . import builtin  # noqa: F401  (imported to register)
from .build import build_mapper, build_test_loader, build_train_loader
from .checks import check_dataset_dicts, check_num_classes
from .errors import DatasetError, TooManyBadImagesError
from .mapper import MAPPER_REGISTRY, InstanceMapper
from .register import register_coco, register_coco_tiny, register_from_config

__all__ = [
    "MAPPER_REGISTRY",
    "DatasetError",
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
]

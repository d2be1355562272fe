"""The augmentations that a config asks for."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode

from .augmentation import (
    ROTATION,
    ClipAugmentation,
    CropByClip,
    FlipByClip,
    ResizeShortestEdgeByClip,
    RotateByClip,
)
from .color import COLOR_KINDS, ColorByClip

_FLIPS = {"none": None, "horizontal": False, "vertical": True, "flip_by_clip": False}


def build_clip_augmentations(cfg: CfgNode) -> list[ClipAugmentation]:
    """Of videos: INPUT.CROP, MIN_SIZE_TRAIN (SAMPLING), MAX_SIZE_TRAIN, RANDOM_FLIP, AUGMENTATIONS.

    Raises:
        ValueError: for unknown or impossible values; names the key.
    """
    node = cfg.INPUT
    crop = [CropByClip(node.CROP.TYPE, node.CROP.SIZE)] if node.CROP.ENABLED else []
    resize = ResizeShortestEdgeByClip(
        node.MIN_SIZE_TRAIN, node.MAX_SIZE_TRAIN, node.MIN_SIZE_TRAIN_SAMPLING
    )
    check_names(node.AUGMENTATIONS, "INPUT.AUGMENTATIONS")
    rotation = [RotateByClip()] if ROTATION in node.AUGMENTATIONS else []
    colors = build_colors(node.AUGMENTATIONS, node.FORMAT)
    return [*crop, resize, *build_flip(node.RANDOM_FLIP), *colors, *rotation]


def build_flip(kind: str) -> list[ClipAugmentation]:
    """Of INPUT.RANDOM_FLIP: "none", "horizontal", "vertical", or the family's "flip_by_clip".

    Raises:
        ValueError: for another value.
    """
    if kind not in _FLIPS:
        raise ValueError(f"INPUT.RANDOM_FLIP is '{kind}'; known are {', '.join(_FLIPS)}.")
    vertical = _FLIPS[kind]
    return [] if vertical is None else [FlipByClip(0.5, vertical)]


def build_colors(names: Sequence[str], image_format: str) -> list[ClipAugmentation]:
    """The colour changes among `names`."""
    return [ColorByClip(kind, image_format) for kind in COLOR_KINDS if kind in names]


def check_names(names: Sequence[str], key: str) -> None:
    """
    Raises:
        ValueError: if `key` lists an augmentation that does not exist.
    """
    known = (*COLOR_KINDS, ROTATION)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{key} has {unknown}; known are {', '.join(known)}.")

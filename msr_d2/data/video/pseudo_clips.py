"""Clips made of a single image: a window that moves over it while the picture turns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform, TransformList

from .augmentation import (
    ROTATION,
    ClipAugmentation,
    CropByClip,
    ResizeShortestEdgeByClip,
    Size,
    SwingByClip,
    draw_corner,
    draw_transforms,
    output_size,
)
from .augmentation_config import build_colors, build_flip, check_names

# Before a window is cut out, the image is resized to one of these shorter sides (pixels).
_CROP_LENGTHS = (400, 500, 600)
_CROP_MAX_SIZE = 1333
_CROP_PROBABILITY = 0.5


class PseudoClips:
    """Draws the transforms that turn one image into the frames of a clip.

    The family's recipe for COCO: with probability 0.5 a window of one size drifts linearly between
    two random places, then the clip is resized, flipped, and rotated by angles of up to 15 degrees
    that grow or shrink from frame to frame. The corners that this leaves are black.
    """

    def __init__(self, num_frames: int, augmentations: Sequence[ClipAugmentation]):
        self._num_frames = num_frames
        self._augmentations = list(augmentations)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> PseudoClips:
        """From INPUT.PSEUDO and INPUT.RANDOM_FLIP.

        Raises:
            ValueError: for unknown or impossible values; names the key.
        """
        node, names = cfg.INPUT.PSEUDO, cfg.INPUT.PSEUDO.AUGMENTATIONS
        check_names(names, "INPUT.PSEUDO.AUGMENTATIONS")
        crop = [DriftingCrop(node.CROP.TYPE, node.CROP.SIZE)] if node.CROP.ENABLED else []
        resize = ResizeShortestEdgeByClip(
            node.MIN_SIZE_TRAIN, node.MAX_SIZE_TRAIN, node.MIN_SIZE_TRAIN_SAMPLING, "INPUT.PSEUDO"
        )
        swing = [SwingByClip()] if ROTATION in names else []
        colors = build_colors(names, cfg.INPUT.FORMAT)
        flip = build_flip(cfg.INPUT.RANDOM_FLIP)
        return cls(node.SAMPLING_FRAME_NUM, [*crop, resize, *flip, *colors, *swing])

    def draw(self, size: Size, generator: np.random.Generator) -> list[TransformList]:
        """The transforms of each frame for an image of `size` (height, width)."""
        return draw_transforms(self._augmentations, size, self._num_frames, generator)


class DriftingCrop(ClipAugmentation):
    """Resizes the image and moves a window over it, in a part of the clips."""

    def __init__(
        self, kind: str, crop_size: Sequence[float], probability: float = _CROP_PROBABILITY
    ):
        """
        Args:
            kind, crop_size: as in :class:`CropByClip`.
            probability: that a clip is cropped at all.
        """
        self._resize = ResizeShortestEdgeByClip(_CROP_LENGTHS, _CROP_MAX_SIZE)
        self._crop = CropByClip(kind, crop_size, "INPUT.PSEUDO.CROP")
        self._probability = probability

    def draw(self, size: Size, num_frames: int, generator: np.random.Generator) -> list[Transform]:
        if generator.random() >= self._probability:
            return [T.NoOpTransform()] * num_frames
        resize = self._resize.draw(size, 1, generator)[0]
        size = output_size(resize, size)
        window = self._crop.draw_size(size, generator)
        first, last = (np.array(draw_corner(size, window, generator)) for _ in range(2))
        steps = np.linspace(0, 1, num_frames)[:, None]
        corners = np.rint(first + steps * (last - first)).astype(int).tolist()
        return [
            TransformList([resize, T.CropTransform(left, top, window[1], window[0])])
            for top, left in corners
        ]

"""Changes of the colours of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform

from .augmentation import ClipAugmentation, Size

COLOR_KINDS = ("brightness", "contrast", "saturation")
_COLOR_RANGE = (0.9, 1.1)
_LUMA = {"RGB": (0.299, 0.587, 0.114), "BGR": (0.114, 0.587, 0.299)}


class ColorByClip(ClipAugmentation):
    """Changes brightness, contrast or saturation of all frames by one factor."""

    def __init__(self, kind: str, image_format: str, factors: Sequence[float] = _COLOR_RANGE):
        """
        Args:
            kind: one of ``COLOR_KINDS``.
            image_format: "RGB" or "BGR".
            factors: least and greatest factor; 1 changes nothing.
        """
        self._kind, self._image_format, self._factors = kind, image_format, tuple(factors)

    def draw(self, size: Size, num_frames: int, generator: np.random.Generator) -> list[Transform]:
        factor = generator.uniform(*self._factors)
        return [ColorTransform(self._kind, factor, self._image_format)] * num_frames


class ColorTransform(Transform):
    """Blends an image with black, its mean value or its grey version; coordinates stay."""

    def __init__(self, kind: str, factor: float, image_format: str):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) to uint8, rounded down."""
        other: float | np.ndarray = 0.0
        if self.kind == "contrast":
            other = img.mean()
        elif self.kind == "saturation":
            other = (img @ np.asarray(_LUMA[self.image_format]))[..., None]
        blend = T.BlendTransform(
            src_image=other, src_weight=1 - self.factor, dst_weight=self.factor
        )
        return blend.apply_image(img)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def inverse(self) -> Transform:
        """Of the coordinates; the colours are lost."""
        return T.NoOpTransform()

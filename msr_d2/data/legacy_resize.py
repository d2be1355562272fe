"""Image resizing with the size arithmetic of maskrcnn-benchmark."""

from __future__ import annotations

import numpy as np
from detectron2.data import transforms as T

from ..layers.legacy_boxes import legacy_resize_shape


class LegacyResizeShortestEdge(T.ResizeShortestEdge):
    """``ResizeShortestEdge`` that cuts off fractions of pixels, where detectron2 rounds.

    Takes the same arguments as ``ResizeShortestEdge``.
    """

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """The transform for an image of shape (H, W) or (H, W, 3)."""
        height, width = image.shape[:2]
        low, high = self.short_edge_length[0], self.short_edge_length[-1]
        if self.is_range:
            short_side = int(np.random.randint(low, high + 1))
        else:
            short_side = int(np.random.choice(self.short_edge_length))
        if short_side == 0:
            return T.NoOpTransform()
        shape = legacy_resize_shape(height, width, short_side, self.max_size)
        return T.ResizeTransform(height, width, *shape, self.interp)

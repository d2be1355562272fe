import numpy as np
import pytest
from detectron2.data import transforms as T

from msr_d2.data.legacy_resize import LegacyResizeShortestEdge


@pytest.mark.parametrize("arguments", [(48, 80, "choice"), ([48, 48], 80, "range")])
def test_fractions_of_pixels_are_cut_off(arguments):
    image = np.zeros((30, 41, 3), np.uint8)  # 41 * 48 / 30 = 65.6
    assert LegacyResizeShortestEdge(*arguments).get_transform(image).apply_image(image).shape == (
        48,
        65,
        3,
    )
    assert T.ResizeShortestEdge(*arguments).get_transform(image).new_w == 66


def test_zero_keeps_the_size():
    transform = LegacyResizeShortestEdge(0, 80, "choice").get_transform(np.zeros((5, 6), np.uint8))
    assert isinstance(transform, T.NoOpTransform)

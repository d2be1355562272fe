import pytest
import torch

from msr_d2.layers.color import rgb_to_lab


def pixel(*rgb, dtype=torch.uint8):
    return torch.tensor(rgb, dtype=dtype).view(3, 1, 1)


@pytest.mark.parametrize(
    "rgb, lab",
    [
        # published CIE-LAB values of the corners of sRGB (D65)
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
        # dark: the linear pieces of both curves. 5 / 255 / 12.92 * 7.787 * 116 = 1.3710
        ((5, 5, 5), (1.371, 0.0, 0.0)),
    ],
)
def test_known_colours(rgb, lab):
    result = rgb_to_lab(pixel(*rgb)).flatten()
    torch.testing.assert_close(result, torch.tensor(lab), atol=0.02, rtol=0)


def test_matches_the_formula_in_double_precision():
    images = torch.randint(0, 256, (2, 3, 7, 5), dtype=torch.uint8)
    v = images.double() / 255
    linear = torch.where(v > 0.04045, ((v + 0.055) / 1.055) ** 2.4, v / 12.92)
    matrix = torch.tensor(
        [
            [0.412453, 0.357580, 0.180423],
            [0.212671, 0.715160, 0.072169],
            [0.019334, 0.119193, 0.950227],
        ],
        dtype=torch.float64,
    )
    xyz = torch.einsum("ij,bjhw->bihw", matrix, linear)
    xyz = xyz / torch.tensor([0.95047, 1, 1.08883], dtype=torch.float64).view(3, 1, 1)
    f = torch.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    expected = torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)
    result = rgb_to_lab(images)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, atol=2e-4, rtol=0)


def test_floating_point_is_truncated():
    torch.testing.assert_close(
        rgb_to_lab(pixel(10.99, 200.5, 255.0, dtype=torch.float32)),
        rgb_to_lab(pixel(10, 200, 255)),
        atol=0,
        rtol=0,
    )


def test_leading_dimensions():
    assert rgb_to_lab(torch.zeros(4, 2, 3, 5, 6)).shape == (4, 2, 3, 5, 6)
    assert rgb_to_lab(torch.zeros(0, 3, 5, 6)).shape == (0, 3, 5, 6)

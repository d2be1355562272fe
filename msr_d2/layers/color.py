"""RGB to CIE-LAB (D65, 2 degrees), on the device of the images."""

from __future__ import annotations

import torch

# Linear RGB to XYZ, one row for each of X, Y and Z; each row is divided by its white point below.
_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)


def rgb_to_lab(images: torch.Tensor) -> torch.Tensor:
    """Convert RGB to LAB with the constants of the sRGB standard.

    Values are truncated to whole numbers first, as the official code of the box losses does by a
    conversion to uint8; so 256 values of the gamma curve are enough.

    Args:
        images: (..., 3, H, W) RGB in 0..255, uint8 or floating point.

    Returns:
        (..., 3, H, W) float32: L in [0, 100], a and b in about [-128, 127]. Black is (0, 0, 0).
    """
    levels = images.to(torch.uint8) if images.is_floating_point() else images
    linear = _linear_levels(images.device)[levels.long()]
    red, green, blue = linear.unbind(-3)
    x, y, z = (
        _cube_root_curve((red * row[0] + green * row[1] + blue * row[2]) / white)
        for row, white in zip(_XYZ, _WHITE)
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def _linear_levels(device: torch.device) -> torch.Tensor:
    """Linear intensity of each of the 256 levels, (256,) float32."""
    level = torch.arange(256, device=device, dtype=torch.float32) / 255
    return torch.where(level > 0.04045, ((level + 0.055) / 1.055) ** 2.4, level / 12.92)


def _cube_root_curve(value: torch.Tensor) -> torch.Tensor:
    """Cube root with the linear piece near zero, of the definition of LAB."""
    return torch.where(value > 0.008856, value.clamp(min=1e-6) ** (1 / 3), 7.787 * value + 16 / 116)

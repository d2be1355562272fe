"""Fixed sine positions of cells of feature maps, in images and in clips.

Along an axis the cells count from 1, divided by the last count, times 2 pi. Channel k is the sine
(k even) or cosine (k odd) of that, divided by 10000^(2 floor(k/2) / channels).
"""

from __future__ import annotations

import math

import torch

_EPSILON = 1e-6


def sine_position_1d(
    length: int,
    channels: int,
    *,
    temperature: float = 10000.0,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Positions along one axis, (length, channels) float32.

    Raises:
        ValueError: if `channels` is odd: sines and cosines come in pairs.
    """
    if channels % 2:
        raise ValueError(f"sine positions need an even number of channels, not {channels}")
    counts = torch.arange(1, length + 1, dtype=torch.float32, device=device)
    angles = counts / (length + _EPSILON) * (2 * math.pi)
    exponents = torch.arange(0, channels, 2, dtype=torch.float32, device=device) / channels
    angles = angles[:, None] / temperature**exponents
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def sine_position_2d(
    size: tuple[int, int],
    channels: int,
    *,
    temperature: float = 10000.0,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Positions of the cells of an image, (channels, h, w): first half y, second half x.

    Args:
        size: (h, w) of the map.
        channels: of both axes together.
        temperature: largest period over smallest period.
        device: of the result.

    Raises:
        ValueError: if `channels` is not divisible by 4.
    """
    if channels % 4:
        raise ValueError(
            f"sine positions of two axes need channels divisible by 4, not {channels}: change the "
            "width of the decoder (MODEL.MASK_FORMER.HIDDEN_DIM, MODEL.SEM_SEG_HEAD.CONVS_DIM)"
        )
    height, width = size
    settings = {"temperature": temperature, "device": device}
    y = sine_position_1d(height, channels // 2, **settings).T[:, :, None]
    x = sine_position_1d(width, channels // 2, **settings).T[:, None, :]
    return torch.cat([y.expand(-1, -1, width), x.expand(-1, height, -1)])


def sine_position_3d(
    size: tuple[int, int, int],
    channels: int,
    *,
    temperature: float = 10000.0,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Positions of the cells of a clip, (T, channels, h, w), Mask2Former-VIS (arXiv 2112.10764).

    The sum of the positions in the image and of those along time, which have all channels.

    Args:
        size: (T, h, w) of the map.
        channels, temperature, device: as in :func:`sine_position_2d`.

    Raises:
        ValueError: if `channels` is not divisible by 4.
    """
    settings = {"temperature": temperature, "device": device}
    time = sine_position_1d(size[0], channels, **settings)
    return sine_position_2d(size[1:], channels, **settings) + time[:, :, None, None]

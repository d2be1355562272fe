"""Textures: what objects, distractors and backgrounds are painted with.

A texture is a function of coordinates in its owner's frame, so that it travels and turns with a
moving object. Two tones are mixed by a pattern, and some grain goes on top.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import cv2
import numpy as np

PATTERNS = ("plain", "stripes", "checker", "dots", "clouds")
Color = tuple[float, float, float]  # R, G, B in [0, 255]
_TILE = 64  # cells of a noise tile; noise repeats after that many cells


@dataclass(frozen=True)
class Texture:
    """A two-tone pattern.

    Attributes:
        light, dark: the two tones, RGB in [0, 255].
        pattern: one of ``PATTERNS``.
        period: length of a repeat, in the unit of the coordinates that ``paint`` is given.
        angle: direction of the pattern in radians.
        grain: amplitude of fine noise, in grey levels.
        seed: seed of the noise.
    """

    light: Color
    dark: Color
    pattern: str = "plain"
    period: float = 1.0
    angle: float = 0.0
    grain: float = 0.0
    seed: int = 0


def hsv(hue: float, saturation: float, value: float) -> Color:
    """RGB in [0, 255] of a hue (taken modulo 1), saturation and value in [0, 1]."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return (255.0 * r, 255.0 * g, 255.0 * b)


def paint(texture: Texture, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Evaluate a texture.

    Args:
        x, y: (H, W) float32 coordinates in the owner's frame.

    Returns:
        (H, W, 3) float32 RGB, about [0, 255] (not clipped).
    """
    cos = math.cos(texture.angle) / texture.period
    sin = math.sin(texture.angle) / texture.period
    u, v = cos * x + sin * y, cos * y - sin * x
    share = _pattern(texture, u, v)[:, :, None]
    dark, light = np.float32(texture.dark), np.float32(texture.light)
    color = dark + share * (light - dark)
    if texture.grain > 0:
        # 8 cells a period keeps the grain about as coarse as a pixel or two of the image
        noise = _noise(texture.seed + 1, u * 8, v * 8)[:, :, None]
        color += (2 * texture.grain) * (noise - 0.5)
    return color


def _pattern(texture: Texture, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Share of the light tone, (H, W) float32 in [0, 1]; u, v in periods."""
    turn = 2.0 * math.pi
    if texture.pattern == "plain":
        return np.ones_like(u)
    if texture.pattern == "clouds":
        return _noise(texture.seed, u * 2, v * 2)
    if texture.pattern == "stripes":
        wave = np.sin(turn * u)
    elif texture.pattern == "checker":
        wave = np.sin(turn * u) * np.sin(turn * v) * 2
    elif texture.pattern == "dots":
        wave = np.cos(turn * u) + np.cos(turn * v) - 0.7
    else:
        raise ValueError(f"unknown texture pattern {texture.pattern!r}, expected one of {PATTERNS}")
    # a steep ramp instead of a step: edges inside a texture are anti-aliased as well
    return np.clip(wave * 2 + 0.5, 0, 1)


def _noise(seed: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Value noise: a random grid of cell size 1, interpolated; (H, W) float32 in [0, 1]."""
    tile = np.random.default_rng(seed).random((_TILE, _TILE)).astype(np.float32)
    u, v = np.mod(u, _TILE), np.mod(v, _TILE)
    return cv2.remap(tile, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

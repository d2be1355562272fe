"""Colours and fonts shared by the overlays and the plots."""

from __future__ import annotations

import colorsys
from functools import cache, lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import ImageFont

Color = tuple  # (red, green, blue), integers in [0, 255]

# Okabe and Ito's eight colours without black, then Tol's "muted" set: both can be told apart with
# every common kind of colour blindness.
PALETTE = (
    (230, 159, 0),
    (0, 114, 178),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (86, 180, 233),
    (240, 228, 66),
    (51, 34, 136),
    (136, 34, 85),
    (68, 170, 153),
    (221, 204, 119),
    (17, 119, 51),
    (204, 102, 119),
    (153, 153, 51),
    (170, 68, 153),
    (136, 204, 238),
)
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#6E6E6E"

_TRACK_RED = (220, 50, 32)
_TRACK_COLORS = (*(PALETTE[i] for i in (0, 5, 2, 4)), _TRACK_RED, *(PALETTE[i] for i in (6, 1, 8)))
_MAX_TRACK_COLORS = 200

_GOLDEN_RATIO = 0.618033988749895


def class_color(class_index: int) -> Color:
    """The colour of a class: the same in every picture, run and machine.

    Args:
        class_index: contiguous class index. Past the palette the hues follow the golden ratio,
            which keeps neighbouring indices far apart.
    """
    if 0 <= class_index < len(PALETTE):
        return PALETTE[class_index]
    hue = (class_index * _GOLDEN_RATIO) % 1.0
    lightness = (0.45, 0.6, 0.35)[class_index % 3]
    return tuple(round(255 * value) for value in colorsys.hls_to_rgb(hue, lightness, 0.75))


@cache
def track_color(index: int) -> Color:
    """The colour of a track: as far as possible from those of all tracks before it.

    The first eight are chosen from the palette, with a red in the place of the one that is close
    to orange. Each further colour is the candidate whose least distance to the earlier ones is
    largest in the LAB colour space.

    Args:
        index: number of the track within its video, from 0. The colour depends on nothing else;
            from 200 on they repeat.
    """
    index %= _MAX_TRACK_COLORS
    if index < len(_TRACK_COLORS):
        return _TRACK_COLORS[index]
    earlier = [track_color(i) for i in range(index)]
    candidates = _candidate_colors()
    gaps = _to_lab(candidates)[:, None] - _to_lab(earlier)[None]
    return candidates[int(np.linalg.norm(gaps, axis=2).min(axis=1).argmax())]


@cache
def _candidate_colors() -> list[Color]:
    """Colours that are neither nearly black nor nearly white, nor gray."""
    grid = [(h / 24, x, s) for s in (0.9, 0.55) for x in (0.35, 0.5, 0.65, 0.8) for h in range(24)]
    return [tuple(round(255 * v) for v in colorsys.hls_to_rgb(*point)) for point in grid]


def _to_lab(colors: list[Color]) -> np.ndarray:
    rgb = np.array(colors, dtype=np.float32)[None] / 255
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0]


def text_color(background: Color) -> Color:
    """Black or white, whichever is easier to read on `background` (ITU-R BT.601 luma)."""
    red, green, blue = background
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


@lru_cache(maxsize=64)
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans at `size` pixels, from the copy that matplotlib carries on every system."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), size)

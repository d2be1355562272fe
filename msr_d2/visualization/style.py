"""Colours and fonts shared by the overlays and the plots."""

from __future__ import annotations

import colorsys
from functools import lru_cache
from pathlib import Path

import matplotlib
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


def text_color(background: Color) -> Color:
    """Black or white, whichever is easier to read on `background` (ITU-R BT.601 luma)."""
    red, green, blue = background
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


@lru_cache(maxsize=64)
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans at `size` pixels, from the copy that matplotlib carries on every system."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), size)

"""Treatments that make the mask of an object hard and leave its class easy.

Each takes a sprite and returns it changed, with the extra sprites that lie over it. What they have
in common: the outline's finest parts are below what a 28 x 28 mask of stride-4 features can follow,
or cannot be told from the picture at all, while hue, overall shape and box stay plain. A network
sees from the texture that such a mask will be poor: that is what a MaskIoU head can learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .dice import Dice
from .outlines import bar, rotate
from .scene import Fade, Pose, Sprite
from .style import ShapesStyle
from .textures import Texture, hsv

Treated = tuple[Sprite, list[Sprite]]
Treatment = Callable[[Sprite, int, ShapesStyle, Dice], Treated]


def make_hard(sprite: Sprite, side: int, style: ShapesStyle, dice: Dice) -> Treated:
    """Give ``sprite`` one of the treatments, drawn by ``style.hard_kinds``.

    Args:
        side: side of the image in pixels.

    Returns:
        the sprite, and the sprites that belong over it.
    """
    return TREATMENTS[dice.weighted(style.hard_kinds)](sprite, side, style, dice)


def add_slats(sprite: Sprite, side: int, style: ShapesStyle, dice: Dice) -> Treated:
    """Cut narrow parallel slits: what remains is a blind that one sees through."""
    period = dice.uniform(*style.slat_period) * side / sprite.pose.scale
    slit = period * (1 - dice.uniform(*style.slat_fill))
    angle, phase = dice.angle(), dice.uniform(0, period)
    offsets = np.arange(-1.5 + phase, 1.5, period)
    cuts = [rotate(bar(4.0, slit, 0.0, offset), angle) for offset in offsets]
    return replace(sprite, cuts=tuple(cuts)), []


def add_holes(sprite: Sprite, side: int, style: ShapesStyle, dice: Dice) -> Treated:
    """A lattice of openings. Some are holes, some hold clear glass, which the mask includes."""
    size = dice.uniform(*style.pane_size) * side / sprite.pose.scale
    pitch, angle, glass = size * dice.uniform(1.3, 1.5), dice.angle(), dice.uniform(0.2, 0.8)
    cuts, panes = [], []
    steps = np.arange(-1.5 + dice.uniform(0, pitch), 1.5, pitch)
    for x in steps:
        for y in steps:
            opening = rotate(bar(size, size, x, y), angle)
            (panes if dice.chance(glass) else cuts).append(opening)
    return replace(sprite, cuts=tuple(cuts), panes=tuple(panes), tint=0.15), []


def add_hairs(sprite: Sprite, side: int, style: ShapesStyle, dice: Dice) -> Treated:
    """Thin hairs all around a smaller body; the whole keeps its size."""
    longest = dice.uniform(*style.hair_length)
    body = sprite.parts[0] * (1 - 0.6 * longest)
    spacing = 0.026 * side / sprite.pose.scale
    hairs = [_hair(point, normal, longest, spacing, dice) for point, normal in walk(body, spacing)]
    return replace(sprite, parts=(body, *hairs)), []


def add_fade(sprite: Sprite, side: int, style: ShapesStyle, dice: Dice) -> Treated:
    """Let one side melt into the background."""
    start = dice.uniform(-0.5, -0.1)
    fade = Fade(dice.angle(), start, start + 0.6, dice.uniform(*style.fade_strength))
    return replace(sprite, fade=fade), []


def add_scribbles(sprite: Sprite, side: int, style: ShapesStyle, dice: Dice) -> Treated:
    """Draw strokes over the object; they are distractors and cut its visible mask."""
    ink = hsv(dice.uniform(0, 1), dice.uniform(0.0, 0.2), dice.uniform(0.15, 0.9))
    strokes = []
    for _ in range(dice.integer(*style.scribbles)):
        away = dice.uniform(-0.8, 0.8) * sprite.pose.scale
        angle = dice.angle()
        x = sprite.pose.x - away * math.sin(angle)
        y = sprite.pose.y + away * math.cos(angle)
        length = dice.uniform(1.8, 2.6) * sprite.pose.scale
        width = dice.uniform(0.018, 0.03) * side
        strokes.append(make_stroke(Pose(x, y, 1.0, angle), length, width, Texture(ink, ink), dice))
    return sprite, strokes


TREATMENTS: dict[str, Treatment] = {
    "slats": add_slats,
    "holes": add_holes,
    "hairs": add_hairs,
    "fade": add_fade,
    "scribbles": add_scribbles,
}


def make_stroke(pose: Pose, length: float, width: float, fill: Texture, dice: Dice) -> Sprite:
    """A slightly bent line, a distractor; ``length`` and ``width`` in object units."""
    along = np.linspace(-0.5, 0.5, 12)
    bend = dice.uniform(-0.12, 0.12) * length * np.cos(np.pi * along)
    upper = np.stack([along * length, bend + width / 2], axis=1)
    lower = np.stack([along * length, bend - width / 2], axis=1)[::-1]
    return Sprite(None, (np.concatenate([upper, lower]),), pose, fill)


def walk(polygon: np.ndarray, step: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Points about every ``step`` along a closed (N, 2) polygon, each with its unit normal."""
    stations = []
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0)):
        edge = end - start
        length = math.hypot(*edge)
        normal = np.array([edge[1], -edge[0]]) / max(length, 1e-9)
        for share in np.arange(0.5, max(round(length / step), 1)) / max(round(length / step), 1):
            stations.append((start + share * edge, normal))
    return stations


def _hair(point, normal, longest: float, spacing: float, dice: Dice) -> np.ndarray:
    """(3, 2) triangle that stands on the outline and leans a little."""
    tip = point + normal * longest * dice.uniform(0.3, 1.0)
    along = np.array([-normal[1], normal[0]])
    foot = along * spacing * 0.35
    base = point - normal * 0.1
    return np.stack([base - foot, base + foot, tip + along * dice.uniform(-0.1, 0.1)])

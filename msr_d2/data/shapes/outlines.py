"""The classes of the shapes set and their outlines.

Outlines are polygons in object units: an (N, 2) float64 array of (x, y), y pointing down, that fits
the square [-1, 1] x [-1, 1]. A pose (``scene.Pose``) puts them into the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .dice import Dice


@dataclass(frozen=True)
class Category:
    """A class of the set.

    Attributes:
        id: id in the json. The ids have gaps, as those of COCO, so that remapping is exercised.
        name: class name.
        hue: the hue, in [0, 1), that most objects of the class wear.
    """

    id: int
    name: str
    hue: float


CATEGORIES = (
    Category(1, "disc", 0.00),
    Category(2, "square", 0.62),
    Category(4, "triangle", 0.35),
    Category(5, "star", 0.13),
    Category(7, "plus", 0.83),
    Category(9, "crescent", 0.49),
)

# What moves in clips: outlines that leave about half of their box empty, at any angle, so that a
# filled box is a poor mask. The ids and hues of classes that both tables have are the same.
CLIP_CATEGORIES = (
    Category(5, "star", 0.13),
    Category(7, "plus", 0.83),
    Category(9, "crescent", 0.49),
    Category(10, "sickle", 0.49),
    Category(11, "ring", 0.01),
    Category(12, "angle", 0.62),
)


def make_outline(name: str, dice: Dice) -> np.ndarray:
    """Draw an outline of class ``name``; members of a class differ a little in proportions.

    Returns:
        (N, 2) polygon in object units.
    """
    return _OUTLINES[name](dice)


def regular_polygon(corners: int, phase: float = 0.0, radius: float = 1.0) -> np.ndarray:
    """(corners, 2) points on a circle, the first at angle ``phase`` (radians)."""
    angle = phase + 2.0 * np.pi * np.arange(corners) / corners
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def blob(dice: Dice, roughness: float = 0.25, corners: int = 40) -> np.ndarray:
    """A smooth closed outline without a class, for distractors."""
    angle = 2.0 * np.pi * np.arange(corners) / corners
    radius = np.ones(corners)
    for frequency in (2, 3, 4, 5):
        radius += dice.uniform(0.0, roughness) * np.cos(frequency * angle + dice.angle())
    radius /= radius.max()
    return radius[:, None] * regular_polygon(corners)


def bar(length: float, width: float, x: float = 0.0, y: float = 0.0, angle: float = 0.0):
    """(4, 2) rectangle of the given length (along ``angle``) and width around (x, y)."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (length / 2, width / 2)
    return rotate(corners, angle) + (x, y)


def rotate(points: np.ndarray, angle: float) -> np.ndarray:
    """Turn (N, 2) points by ``angle`` radians around the origin."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def _disc(dice: Dice) -> np.ndarray:
    return regular_polygon(48)


def _square(dice: Dice) -> np.ndarray:
    return bar(1.7, 1.7)


def _triangle(dice: Dice) -> np.ndarray:
    return regular_polygon(3, -np.pi / 2)


def _star(dice: Dice) -> np.ndarray:
    points = regular_polygon(10, -np.pi / 2)
    points[1::2] *= dice.uniform(0.40, 0.52)
    return points


def _plus(dice: Dice) -> np.ndarray:
    a = dice.uniform(0.26, 0.36)  # half the width of an arm
    quarter = np.array([[a, -1.0], [a, -a], [1.0, -a]])
    return np.concatenate([rotate(quarter, k * np.pi / 2) for k in range(4)])


def _crescent(dice: Dice, thinnest: float = 0.75, thickest: float = 0.95) -> np.ndarray:
    """A disc minus a disc of the same radius that is shifted to the right."""
    shift = dice.uniform(thinnest, thickest)
    tip = np.arccos(shift / 2)  # the two circles meet at x = shift / 2
    outer = np.linspace(tip, 2 * np.pi - tip, 36)
    inner = np.linspace(np.pi + tip, np.pi - tip, 24)[1:-1]
    points = [np.stack([np.cos(outer), np.sin(outer)], axis=1)]
    points.append(np.stack([shift + np.cos(inner), np.sin(inner)], axis=1))
    return np.concatenate(points) + (0.25, 0.0)


def _sickle(dice: Dice) -> np.ndarray:
    return _crescent(dice, 0.58, 0.72)


def _ring(dice: Dice) -> np.ndarray:
    """Two circles that are joined by a cut of no width, so that one polygon has a hole."""
    outer = regular_polygon(40)
    inner = dice.uniform(0.62, 0.70) * outer[::-1]
    return np.concatenate([outer, outer[:1], inner[-1:], inner])


def _angle(dice: Dice) -> np.ndarray:
    """The letter L, with legs of unlike length."""
    thick, short = dice.uniform(0.56, 0.70), dice.uniform(1.5, 1.9)
    points = [[0, 0], [thick, 0], [thick, 2 - thick], [short, 2 - thick], [short, 2], [0, 2]]
    return np.array(points, float) - (short / 2, 1.0)


_OUTLINES = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "plus": _plus,
    "crescent": _crescent,
    "sickle": _sickle,
    "ring": _ring,
    "angle": _angle,
}

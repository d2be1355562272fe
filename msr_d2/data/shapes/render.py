"""Scene -> pixels: an anti-aliased image and a crisp label of what is visible where."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from .scene import Fade, Pose, Scene, Sprite
from .textures import paint

_SUBPIXELS = 8  # coverage is counted on a grid of 8 x 8 points a pixel
_FIXED = 4  # fractional bits of cv2's polygon coordinates
BACKGROUND = -1

Window = tuple[slice, slice]  # rows, columns
Polygons = tuple[np.ndarray, ...]  # each (N, 2), in object units


@dataclass(frozen=True)
class Rendered:
    """A scene drawn at one time.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        labels: (H, W) int16, index into ``scene.sprites`` of what is visible at the centre of each
            pixel (where it covers at least half of it), ``BACKGROUND`` elsewhere. One label a
            pixel: visible masks cannot overlap.
        areas: for every sprite, the pixels of its mask in the image if nothing lay in front of it.
    """

    image: np.ndarray
    labels: np.ndarray
    areas: tuple[int, ...]

    def mask(self, index: int) -> np.ndarray:
        """(H, W) bool visible mask of sprite ``index``."""
        return self.labels == index


def render(scene: Scene, t: float = 0.0) -> Rendered:
    """Draw ``scene`` at time ``t >= 0``, in frames; 0 for a still image."""
    x, y = _pixel_centers((slice(0, scene.height), slice(0, scene.width)))
    image = paint(scene.background, x, y)
    labels, areas = _empty_labels(scene), []
    for layer in _layers(scene, t):
        areas.append(layer.stamp(labels))
        _blend(image[layer.window], layer)
    return Rendered(_expose(image, scene, t), labels, tuple(areas))


def visible_labels(scene: Scene, t: float = 0.0) -> tuple[np.ndarray, tuple[int, ...]]:
    """``labels`` and ``areas`` of ``render(scene, t)``, without painting."""
    labels = _empty_labels(scene)
    areas = tuple(layer.stamp(labels) for layer in _layers(scene, t))
    return labels, areas


@dataclass(frozen=True)
class _Layer:
    """A sprite at one time: its coverage, (h, w) float32 in [0, 1], in a window of the image."""

    index: int
    sprite: Sprite
    pose: Pose
    window: Window
    coverage: np.ndarray

    def stamp(self, labels: np.ndarray) -> int:
        """Write the sprite's index into ``labels``, in place; returns the area of its mask."""
        mask = self.coverage >= 0.5
        labels[self.window][mask] = self.index
        return int(mask.sum())


def _layers(scene: Scene, t: float) -> Iterator[_Layer]:
    for index, sprite in enumerate(scene.sprites):
        pose = sprite.pose.after(sprite.motion, t)
        window = _window(sprite, pose, scene)
        yield _Layer(index, sprite, pose, window, _cover(sprite.parts, sprite.cuts, pose, window))


def _empty_labels(scene: Scene) -> np.ndarray:
    return np.full((scene.height, scene.width), BACKGROUND, np.int16)


def _blend(image: np.ndarray, layer: _Layer) -> None:
    """Paint a layer over ``image``, (h, w, 3) float32, in place."""
    if image.size == 0:
        return
    sprite, opacity = layer.sprite, layer.coverage
    u, v = layer.pose.to_object(*_pixel_centers(layer.window))
    if sprite.panes:
        glass = _cover(sprite.panes, (), layer.pose, layer.window)
        opacity = opacity * (1 - (1 - sprite.tint) * glass)
    if sprite.fade is not None:
        opacity = opacity * (1 - _fade(sprite.fade, u, v))
    image += opacity[:, :, None] * (paint(sprite.fill, u, v) - image)


def _fade(fade: Fade, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    along = math.cos(fade.angle) * u + math.sin(fade.angle) * v
    ramp = np.clip((along - fade.start) / (fade.stop - fade.start), 0, 1)
    return fade.strength * ramp * ramp * (3 - 2 * ramp)


def _window(sprite: Sprite, pose: Pose, scene: Scene) -> Window:
    """The part of the image that a sprite can touch; empty if it is outside."""
    points = np.concatenate([pose.to_image(part) for part in sprite.parts])
    limit = (scene.width, scene.height)
    low = np.clip(np.floor(points.min(axis=0)).astype(int), 0, limit)
    high = np.clip(np.ceil(points.max(axis=0)).astype(int), 0, limit)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _cover(parts: Polygons, cuts: Polygons, pose: Pose, window: Window) -> np.ndarray:
    """Share of each pixel that the union of ``parts`` without ``cuts`` covers.

    Returns:
        (h, w) float32 in [0, 1], h x w being the size of ``window``.
    """
    height, width = (edge.stop - edge.start for edge in window)
    if height == 0 or width == 0:
        return np.zeros((height, width), np.float32)
    canvas = np.zeros((height * _SUBPIXELS, width * _SUBPIXELS), np.uint8)
    origin = np.array([window[1].start, window[0].start])
    for polygons, value in ((parts, 255), (cuts, 0)):
        for polygon in polygons:
            # cv2 puts integers at the centres of (sub)pixels, we put them at their corners
            points = (pose.to_image(polygon) - origin) * _SUBPIXELS - 0.5
            points = np.round(points * 2**_FIXED).astype(np.int32)
            cv2.fillPoly(canvas, [points], value, shift=_FIXED)
    covered = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return covered.astype(np.float32) / 255


def _pixel_centers(window: Window) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the pixel centres of a window, two (h, w) float32 arrays."""
    rows, columns = (np.arange(s.start, s.stop, dtype=np.float32) + 0.5 for s in window)
    x, y = np.meshgrid(columns, rows)
    return x, y


def _expose(image: np.ndarray, scene: Scene, t: float) -> np.ndarray:
    """Add the camera's noise, fresh for every frame, and round to uint8."""
    if scene.noise > 0:
        rng = np.random.default_rng([scene.noise_seed, round(1000 * t)])
        grain = rng.random(image.shape[:2], dtype=np.float32) - np.float32(0.5)
        image = image + (2 * scene.noise) * grain[:, :, None]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)

"""What a scene is: a background and sprites, each with outline, pose, motion and paint.

A scene is a description without pixels. ``render.render`` draws it at a time t; one scene can
therefore be written as an image with COCO annotations, as an instance label image, or, drawn at
t = 0, 1, 2, ..., as a clip whose sprites keep their index from frame to frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .outlines import Category, rotate
from .textures import Texture


@dataclass(frozen=True)
class Motion:
    """Change of a pose per unit of time (one frame of a clip).

    Attributes:
        dx, dy: displacement in pixels.
        spin: rotation in radians.
        growth: factor on the scale; 1 keeps the size.
    """

    dx: float = 0.0
    dy: float = 0.0
    spin: float = 0.0
    growth: float = 1.0


@dataclass(frozen=True)
class Pose:
    """Where a sprite is.

    Attributes:
        x, y: centre in pixels; pixel (i, j) covers [j, j + 1] x [i, i + 1].
        scale: pixels per object unit (half the side of the object's box, roughly).
        rotation: radians.
        stretch: ratio of the sprite's two axes, applied before the rotation.
    """

    x: float
    y: float
    scale: float
    rotation: float = 0.0
    stretch: float = 1.0

    def after(self, motion: Motion, t: float) -> Pose:
        """The pose at time ``t`` of a sprite that starts here and keeps moving."""
        return Pose(
            self.x + t * motion.dx,
            self.y + t * motion.dy,
            self.scale * motion.growth**t,
            self.rotation + t * motion.spin,
            self.stretch,
        )

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) points in object units -> (N, 2) points in pixels."""
        points = points * (self.stretch**0.5, self.stretch**-0.5)
        return rotate(points, self.rotation) * self.scale + (self.x, self.y)

    def to_object(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixel coordinates -> object units, the inverse of ``to_image``; arrays of one shape."""
        cos = math.cos(self.rotation) / self.scale
        sin = math.sin(self.rotation) / self.scale
        u, v = (x - self.x) * cos + (y - self.y) * sin, (y - self.y) * cos - (x - self.x) * sin
        return u * self.stretch**-0.5, v * self.stretch**0.5


@dataclass(frozen=True)
class Fade:
    """A sprite that melts into what lies behind it, towards one side. Its mask does not shrink.

    Attributes:
        angle: direction of the fading side, radians, in the object's frame.
        start, stop: positions along it, in object units, where fading starts and is complete.
        strength: opacity that is lost where fading is complete, in [0, 1].
    """

    angle: float
    start: float
    stop: float
    strength: float


@dataclass(frozen=True)
class Sprite:
    """One thing in a scene. Its shape is ``parts`` minus ``cuts``, in object units.

    Attributes:
        category: its class, or None for a distractor, which is never annotated.
        parts: (N, 2) polygons; the shape is their union.
        pose, motion: where it is at t = 0 and how it moves.
        fill: its paint, in object units.
        cuts: (N, 2) polygons that are holes: what lies behind is seen and is not part of the mask.
        panes: (N, 2) polygons of tinted glass: one sees through, but they are part of the mask.
        tint: opacity of the panes, in [0, 1].
        fade: optional soft side.
        crowd: number of the crowd that it belongs to, or None. A crowd is annotated as one region.
    """

    category: Category | None
    parts: tuple[np.ndarray, ...]
    pose: Pose
    fill: Texture
    motion: Motion = Motion()
    cuts: tuple[np.ndarray, ...] = ()
    panes: tuple[np.ndarray, ...] = ()
    tint: float = 0.0
    fade: Fade | None = None
    crowd: int | None = None


@dataclass(frozen=True)
class Scene:
    """A background and the sprites on it, from back to front.

    Attributes:
        height, width: pixels.
        background: its paint, in pixels.
        sprites: in depth order; a later one hides an earlier one.
        noise: amplitude of the camera's noise in grey levels.
        noise_seed: seed of that noise.
    """

    height: int
    width: int
    background: Texture
    sprites: tuple[Sprite, ...] = field(default=())
    noise: float = 0.0
    noise_seed: int = 0

"""Clips without pixels: sprites, and where each is at every frame.

A path is steady motion, a swing around it, and a way out and back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .scene import Motion, Pose, Scene, Sprite
from .textures import Texture

_GREY = Texture((128.0, 128.0, 128.0), (128.0, 128.0, 128.0))


@dataclass(frozen=True)
class Swing:
    """A to and fro on top of steady motion.

    Attributes:
        dx, dy: amplitude in pixels.
        period: frames of one swing.
        phase: radians; the displacement is 0 at t = 0 for any phase.
    """

    dx: float
    dy: float
    period: float
    phase: float = 0.0

    def offset(self, t: float) -> tuple[float, float]:
        """Displacement (x, y) in pixels at time ``t``."""
        turn = 2.0 * math.pi * t / self.period
        share = math.sin(turn + self.phase) - math.sin(self.phase)
        return self.dx * share, self.dy * share


@dataclass(frozen=True)
class Detour:
    """A way out to (dx, dy), a stay there, and the way back.

    Attributes:
        dx, dy: displacement during the stay, in pixels.
        start, stop: times of departure and of being back, in frames.
        ride: frames that each of the two ways takes; at most half of ``stop - start``.
    """

    dx: float
    dy: float
    start: float
    stop: float
    ride: float

    def offset(self, t: float) -> tuple[float, float]:
        """Displacement (x, y) in pixels at time ``t``."""
        share = min(max(min(t - self.start, self.stop - t) / self.ride, 0.0), 1.0)
        share = share * share * (3.0 - 2.0 * share)
        return self.dx * share, self.dy * share


@dataclass(frozen=True)
class Path:
    """The way of a sprite through a clip.

    Attributes:
        start: pose at t = 0.
        motion: steady change per frame.
        swing, detour: displacements on top of it.
    """

    start: Pose
    motion: Motion = Motion()
    swing: Swing | None = None
    detour: Detour | None = None

    def at(self, t: float, camera: tuple[float, float] = (0.0, 0.0)) -> Pose:
        """The pose at time ``t``, in frames.

        Args:
            camera: displacement (x, y) per frame, in pixels, of all that the camera sees.
        """
        pose = self.start.after(self.motion, t)
        x, y = pose.x + t * camera[0], pose.y + t * camera[1]
        for part in (self.swing, self.detour):
            if part is not None:
                dx, dy = part.offset(t)
                x, y = x + dx, y + dy
        return replace(pose, x=x, y=y)


@dataclass(frozen=True)
class Clip:
    """A description of a clip without pixels; ``render(clip.scene(t), t)`` draws frame t.

    Attributes:
        height, width: pixels.
        length: frames.
        sprites: from back to front; a sprite keeps its index in all frames. The first one is the
            background, which fills the frame.
        paths: the way of each sprite.
        camera: displacement (x, y) per frame of everything, in pixels.
        noise, noise_seed: of the camera, see ``Scene``.
        events: what happens in it, sorted: of "camera", "leaves", "occluder", "twins".
    """

    height: int
    width: int
    length: int
    sprites: tuple[Sprite, ...]
    paths: tuple[Path, ...]
    camera: tuple[float, float] = (0.0, 0.0)
    noise: float = 0.0
    noise_seed: int = 0
    events: tuple[str, ...] = ()

    @property
    def objects(self) -> list[int]:
        """Indices of the sprites that are annotated."""
        return [index for index, sprite in enumerate(self.sprites) if sprite.category is not None]

    def scene(self, t: float) -> Scene:
        """The scene as it stands at time ``t``, in frames."""
        sprites = tuple(
            replace(sprite, pose=path.at(t, self.camera), motion=Motion())
            for sprite, path in zip(self.sprites, self.paths)
        )
        return Scene(self.height, self.width, _GREY, sprites, self.noise, self.noise_seed)

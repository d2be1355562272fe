"""Draw moving clips at random: a scene and a path for everything in it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .dice import Dice
from .motion import Clip, Detour, Path, Swing
from .outlines import CLIP_CATEGORIES, Category, bar, blob, make_outline
from .render import visible_labels
from .scene import Motion, Pose, Sprite
from .style import ClipStyle
from .textures import Color, Texture, hsv

_ATTEMPTS = 30


def sample_clip(
    length: int, height: int, width: int, dice: Dice, style: ClipStyle | None = None
) -> Clip:
    """A random clip; equal dice give equal clips.

    Args:
        length: frames.
        height, width: pixels.
    """
    style = style or ClipStyle()
    for _ in range(_ATTEMPTS):
        clip = _Sampler(length, height, width, dice, style).clip()
        if is_visible(clip, style):
            break
    return clip


def is_visible(clip: Clip, style: ClipStyle) -> bool:
    """Whether enough can be seen, in enough frames, of every object of a clip."""
    frames = [visible_labels(clip.scene(t)) for t in range(clip.length)]
    full = np.max([areas for _, areas in frames], axis=0)
    for index in clip.objects:
        seen = [(labels == index).sum() for labels, _ in frames]
        enough = sum(area >= style.min_visible * full[index] for area in seen)
        if enough < style.min_frames * clip.length:
            return False
    return True


class _Sampler:
    """Draws one clip. Lengths of the style are turned into pixels by ``side``."""

    def __init__(self, length: int, height: int, width: int, dice: Dice, style: ClipStyle):
        self.length, self.height, self.width = length, height, width
        self.dice, self.style = dice, style
        self.side = min(height, width)
        self.light, self.background = _background(self.side, dice)
        known = {category.name: category for category in CLIP_CATEGORIES}
        self.categories = [known[name] for name in style.classes]

    def clip(self) -> Clip:
        dice, style = self.dice, self.style
        camera, events = (0.0, 0.0), set()
        if dice.chance(style.camera_share):
            events.add("camera")
            speed, angle = dice.uniform(*style.camera) * self.side, dice.angle()
            camera = (speed * math.cos(angle), speed * math.sin(angle))
        behind = [self._ground()]
        behind += [self._distractor() for _ in range(dice.integer(*style.distractors))]
        objects = self._objects(camera, events)
        front = [self._occluder() for _ in range(dice.integer(*style.occluders))]
        if front:
            events.add("occluder")
        sprites, paths = zip(*behind, *objects, *front)
        return Clip(
            self.height,
            self.width,
            self.length,
            sprites,
            paths,
            camera,
            style.noise,
            dice.seed(),
            tuple(sorted(events)),
        )

    def _ground(self) -> tuple[Sprite, Path]:
        """The background: a sheet that stays larger than the frame however far it drifts."""
        reach = 4.0 * (self.height + self.width)
        pose = Pose(self.width / 2, self.height / 2, 1.0)
        return Sprite(None, (bar(reach, reach),), pose, self.background), Path(pose)

    def _objects(self, camera, events: set[str]) -> list[tuple[Sprite, Path]]:
        dice, style = self.dice, self.style
        count = dice.integer(*style.objects)
        twins = count >= 2 and dice.chance(style.twins_share)
        leaves = dice.chance(style.leave_share)
        result, placed = [], []
        for index in range(count):
            pose = self._place(placed)
            if pose is None:
                continue
            if twins and len(result) == 1:
                events.add("twins")
                model = result[0][0]
                pose = replace(pose, scale=placed[0].scale * dice.uniform(0.9, 1.1))
                sprite = replace(model, pose=pose)
            else:
                sprite = self._object(pose)
            placed.append(pose)
            path = self._path(pose, camera)
            if leaves and index == 0:
                events.add("leaves")
                path = self._leave(path, camera)
            result.append((sprite, path))
        return result

    def _place(self, placed: list[Pose]) -> Pose | None:
        """A pose that keeps its distance from those already ``placed``; None without room."""
        dice = self.dice
        for _ in range(_ATTEMPTS):
            scale = dice.log_uniform(*self.style.size) * self.side / 2
            x, y = dice.uniform(scale, self.width - scale), dice.uniform(scale, self.height - scale)
            apart = (
                math.hypot(x - p.x, y - p.y) / (scale + p.scale) >= self.style.crowding
                for p in placed
            )
            if all(apart):
                return Pose(x, y, scale, dice.angle(), dice.uniform(0.88, 1.14))
        return None

    def _object(self, pose: Pose) -> Sprite:
        dice, style = self.dice, self.style
        category: Category = dice.pick(self.categories)
        hue = category.hue + dice.uniform(-style.hue_spread, style.hue_spread)
        light = hsv(hue, dice.uniform(0.55, 0.9), dice.uniform(0.65, 0.97))
        if dice.chance(style.faint_share):
            light = _mix(light, self.light, dice.uniform(*style.faint))
        fill = self._two_tone(light, dice.uniform(*style.contrast))
        return Sprite(category, (make_outline(category.name, dice),), pose, fill)

    def _path(self, pose: Pose, camera: tuple[float, float]) -> Path:
        """A way whose end lies inside the frame, the camera's drift included."""
        dice, style, steps = self.dice, self.style, max(self.length - 1, 1)
        way, angle = dice.uniform(*style.travel) * self.side, dice.angle()
        margin = 0.7 * pose.scale
        end_x = _clip(pose.x + way * math.cos(angle), margin, self.width - margin)
        end_y = _clip(pose.y + way * math.sin(angle), margin, self.height - margin)
        spin, growth = 0.0, 1.0
        if dice.chance(style.spin_share):
            spin = dice.uniform(*style.spin) * dice.pick((-1, 1))
        if dice.chance(style.scale_share):
            growth = dice.uniform(*style.scale) ** (dice.pick((-1, 1)) / steps)
        dx, dy = (end_x - pose.x) / steps - camera[0], (end_y - pose.y) / steps - camera[1]
        sway, direction = dice.uniform(*style.sway) * self.side, dice.angle()
        swing = Swing(
            sway * math.cos(direction),
            sway * math.sin(direction),
            dice.uniform(0.7, 1.6) * self.length,
            dice.angle(),
        )
        return Path(pose, Motion(dx, dy, spin, growth), swing)

    def _leave(self, path: Path, camera: tuple[float, float]) -> Path:
        """Send a sprite out of the frame, over the nearest side, and let it return."""
        dice, length = self.dice, self.length
        stay = max(round(dice.uniform(0.12, 0.25) * length), 1)
        ride = max(0.2 * length, 1.0)
        start = dice.uniform(1.0, max(length - 2 * ride - stay - 1.0, 1.0))
        stop = start + 2 * ride + stay
        middle = path.at((start + stop) / 2, camera)
        reach = 1.6 * middle.scale
        ways = [
            (-middle.x - reach, 0.0),
            (self.width - middle.x + reach, 0.0),
            (0.0, -middle.y - reach),
            (0.0, self.height - middle.y + reach),
        ]
        dx, dy = min(ways, key=lambda way: abs(way[0] + way[1]))
        return replace(path, detour=Detour(dx, dy, start, stop, ride))

    def _distractor(self) -> tuple[Sprite, Path]:
        """A blob or a bar behind the objects, at rest in the scene."""
        dice = self.dice
        scale = dice.log_uniform(0.08, 0.25) * self.side
        pose = Pose(dice.uniform(0, self.width), dice.uniform(0, self.height), scale, dice.angle())
        if dice.chance(self.style.decoy_share):
            light = hsv(dice.pick(self.categories).hue, dice.uniform(0.3, 0.7), 0.8)
        else:
            light = hsv(dice.uniform(0, 1), dice.uniform(0, 0.25), dice.uniform(0.3, 0.9))
        return self._shape(pose, light), Path(pose)

    def _occluder(self) -> tuple[Sprite, Path]:
        """A grey bar or blob that crosses the frame in front of the objects."""
        dice = self.dice
        scale = dice.uniform(0.10, 0.18) * self.side
        pose = Pose(dice.uniform(0, self.width), dice.uniform(0, self.height), scale, dice.angle())
        light = hsv(dice.uniform(0, 1), dice.uniform(0, 0.2), dice.uniform(0.15, 0.95))
        speed, angle = dice.uniform(0.02, 0.08) * self.side, dice.angle()
        motion = Motion(speed * math.cos(angle), speed * math.sin(angle), dice.uniform(-0.1, 0.1))
        return self._shape(pose, light), Path(pose, motion)

    def _shape(self, pose: Pose, light: Color) -> Sprite:
        dice = self.dice
        outline = bar(2.6, dice.uniform(0.3, 0.6)) if dice.chance(0.5) else blob(dice)
        return Sprite(None, (outline,), pose, self._two_tone(light, dice.uniform(0.05, 0.3)))

    def _two_tone(self, light: Color, contrast: float) -> Texture:
        """A texture of one colour and a darker one, in object units."""
        dice = self.dice
        dark = tuple(channel * (1 - contrast) for channel in light)
        pattern = dice.weighted({"plain": 3, "clouds": 2, "stripes": 1, "checker": 1, "dots": 1})
        period, grain = dice.uniform(0.5, 1.1), dice.uniform(*self.style.grain)
        return Texture(light, dark, pattern, period, dice.angle(), grain, dice.seed())


def _background(side: int, dice: Dice) -> tuple[Color, Texture]:
    """A muted texture in pixels, and its lighter tone."""
    light = hsv(dice.uniform(0, 1), dice.uniform(0.03, 0.22), dice.uniform(0.4, 0.85))
    dark = tuple(channel * dice.uniform(0.75, 0.95) for channel in light)
    pattern = dice.weighted({"clouds": 4, "plain": 1, "stripes": 1, "checker": 1, "dots": 1})
    period = dice.uniform(0.15, 0.6) * side
    texture = Texture(light, dark, pattern, period, dice.angle(), dice.uniform(0, 8), dice.seed())
    return light, texture


def _mix(color: Color, other: Color, share: float) -> Color:
    return tuple((1 - share) * a + share * b for a, b in zip(color, other))


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)

"""Draw scenes at random."""

from __future__ import annotations

import math
from dataclasses import replace

from .dice import Dice
from .hardness import make_hard, make_stroke
from .outlines import CATEGORIES, Category, bar, blob, make_outline
from .render import visible_labels
from .scene import Pose, Scene, Sprite
from .style import ShapesStyle
from .textures import Texture, hsv

_PLACING_ATTEMPTS = 30


def sample_scene(side: int, dice: Dice, style: ShapesStyle | None = None) -> Scene:
    """A random scene of ``side`` x ``side`` pixels; equal dice give equal scenes."""
    style = style or ShapesStyle()
    background = _background(side, dice)
    sprites = [_distractor(side, style, dice) for _ in range(dice.integer(*style.distractors))]
    if not dice.chance(style.empty_share):
        placed: list[Pose] = []
        if dice.chance(style.crowd_share):
            sprites += _crowd(side, placed, style, dice)
        sprites += _objects(side, placed, style, dice)
    strokes = [_stroke(side, dice) for _ in range(dice.integer(*style.strokes))]
    scene = Scene(
        side, side, background, tuple(sprites + strokes), style.noise, noise_seed=dice.seed()
    )
    return _without_hidden(scene, style.min_visible)


def _objects(side: int, placed: list[Pose], style: ShapesStyle, dice: Dice) -> list[Sprite]:
    """The annotated objects with what lies over them, and the occluders between them."""
    sprites = []
    for _ in range(dice.integer(*style.objects)):
        pose = _place(side, placed, style, dice)
        if pose is not None:
            placed.append(pose)
            sprites += _object(pose, side, style, dice)
    for _ in range(dice.integer(*style.occluders)):
        sprites.insert(dice.integer(0, len(sprites)), _distractor(side, style, dice, small=True))
    return sprites


def _object(pose: Pose, side: int, style: ShapesStyle, dice: Dice) -> list[Sprite]:
    category = dice.pick(CATEGORIES)
    hard = dice.chance(style.hard_share)
    hue = category.hue
    if not hard and dice.chance(style.off_hue):
        hue = dice.pick(CATEGORIES).hue
    fill = _object_fill(hue, side / pose.scale, style, dice)
    sprite = Sprite(category, (make_outline(category.name, dice),), pose, fill)
    if not hard:
        return [sprite]
    sprite, over = make_hard(sprite, side, style, dice)
    return [sprite, *over]


def _place(side: int, placed: list[Pose], style: ShapesStyle, dice: Dice) -> Pose | None:
    """A pose that keeps its distance from those already ``placed``; None if there is no room."""
    for _ in range(_PLACING_ATTEMPTS):
        scale = dice.log_uniform(*style.size) * side / 2
        x, y = (dice.uniform(0.85 * scale, side - 0.85 * scale) for _ in range(2))
        if all(
            math.hypot(x - other.x, y - other.y) >= style.crowding * (scale + other.scale)
            for other in placed
        ):
            return Pose(x, y, scale, dice.angle(), dice.uniform(0.85, 1.18))
    return None


def _crowd(side: int, placed: list[Pose], style: ShapesStyle, dice: Dice) -> list[Sprite]:
    """A heap of small objects of one class, which is annotated as one crowd region."""
    category = dice.pick(CATEGORIES)
    radius = dice.uniform(0.12, 0.18) * side
    x, y = (dice.uniform(radius, side - radius) for _ in range(2))
    placed.append(Pose(x, y, radius * 1.2))
    return [
        _crowd_member(category, x, y, radius, side, style, dice)
        for _ in range(dice.integer(14, 24))
    ]


def _crowd_member(
    category: Category, x: float, y: float, radius: float, side: int, style: ShapesStyle, dice: Dice
) -> Sprite:
    angle, away = dice.angle(), radius * math.sqrt(dice.uniform(0, 1))
    scale = dice.uniform(0.025, 0.04) * side
    pose = Pose(x + away * math.cos(angle), y + away * math.sin(angle), scale, dice.angle())
    fill = _object_fill(category.hue, side / scale, style, dice)
    return Sprite(category, (make_outline(category.name, dice),), pose, fill, crowd=0)


def _distractor(side: int, style: ShapesStyle, dice: Dice, small: bool = False) -> Sprite:
    """A blob or a bar that belongs to no class."""
    scale = dice.log_uniform(*((0.05, 0.10) if small else (0.07, 0.22))) * side
    x, y = (dice.uniform(0, side) for _ in range(2))
    saturation = dice.uniform(0.5, 0.8) if dice.chance(style.vivid_share) else dice.uniform(0, 0.3)
    light = hsv(dice.uniform(0, 1), saturation, dice.uniform(0.3, 0.9))
    fill = _two_tone(light, dice.uniform(0.05, 0.4), side / scale, dice)
    shape = bar(2.0, dice.uniform(0.3, 0.7)) if dice.chance(0.4) else blob(dice)
    return Sprite(None, (shape,), Pose(x, y, scale, dice.angle()), fill)


def _stroke(side: int, dice: Dice) -> Sprite:
    light = hsv(dice.uniform(0, 1), dice.uniform(0.0, 0.3), dice.uniform(0.1, 0.95))
    x, y = (dice.uniform(0, side) for _ in range(2))
    pose = Pose(x, y, side, dice.angle())
    length, width = dice.uniform(0.3, 0.9), dice.uniform(0.012, 0.025)
    return make_stroke(pose, length, width, Texture(light, light), dice)


def _background(side: int, dice: Dice) -> Texture:
    """Muted colours, so that objects stand out by their hue."""
    light = hsv(dice.uniform(0, 1), dice.uniform(0.03, 0.25), dice.uniform(0.45, 0.9))
    dark = tuple(channel * dice.uniform(0.7, 0.95) for channel in light)
    pattern = dice.weighted({"clouds": 4, "plain": 1, "stripes": 1, "checker": 1, "dots": 1})
    period = dice.uniform(0.05, 0.4 if pattern == "clouds" else 0.15) * side
    return Texture(light, dark, pattern, period, dice.angle(), dice.uniform(0, 12), dice.seed())


def _object_fill(hue: float, unit: float, style: ShapesStyle, dice: Dice) -> Texture:
    light = hsv(
        hue + dice.uniform(-0.025, 0.025), dice.uniform(0.55, 0.9), dice.uniform(0.65, 0.97)
    )
    return _two_tone(light, dice.uniform(*style.contrast), unit, dice)


def _two_tone(light, contrast: float, unit: float, dice: Dice) -> Texture:
    """A texture of one colour and a darker one; ``unit`` is the image's side in object units."""
    dark = tuple(channel * (1 - contrast) for channel in light)
    pattern = dice.weighted({"plain": 2, "clouds": 2, "stripes": 1, "checker": 1, "dots": 1})
    period = dice.uniform(0.05, 0.11) * unit
    return Texture(light, dark, pattern, period, dice.angle(), dice.uniform(0, 10), dice.seed())


def _without_hidden(scene: Scene, min_visible: float) -> Scene:
    """Take out objects that are mostly hidden, until every object that is left can be seen."""
    while True:
        labels, areas = visible_labels(scene)
        kept = [
            sprite
            for index, sprite in enumerate(scene.sprites)
            if sprite.category is None
            or sprite.crowd is not None
            or (labels == index).sum() >= max(min_visible * areas[index], 1)
        ]
        if len(kept) == len(scene.sprites):
            return scene
        scene = replace(scene, sprites=tuple(kept))

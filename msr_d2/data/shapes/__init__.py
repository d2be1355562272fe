"""The shapes set: generated images whose masks are easy or hard while their classes are plain."""

from .coco import annotate, mask_to_polygons
from .dice import Dice
from .files import write_coco
from .outlines import CATEGORIES, Category
from .render import Rendered, render
from .sample import sample_scene
from .scene import Fade, Motion, Pose, Scene, Sprite
from .style import ShapesStyle
from .textures import Texture

__all__ = [
    "CATEGORIES",
    "Category",
    "Dice",
    "Fade",
    "Motion",
    "Pose",
    "Rendered",
    "Scene",
    "ShapesStyle",
    "Sprite",
    "Texture",
    "annotate",
    "mask_to_polygons",
    "render",
    "sample_scene",
    "write_coco",
]

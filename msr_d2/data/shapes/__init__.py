"""The shapes set: generated images whose masks are easy or hard while their classes are plain.

The same shapes also move: clips in YouTube-VIS format whose masks are far from filled boxes.
"""

from .clips import sample_clip
from .coco import annotate, mask_to_polygons
from .dice import Dice
from .files import write_coco
from .motion import Clip, Detour, Path, Swing
from .outlines import CATEGORIES, CLIP_CATEGORIES, Category
from .render import Rendered, render
from .sample import sample_scene
from .scene import Fade, Motion, Pose, Scene, Sprite
from .style import ClipStyle, ShapesStyle
from .textures import Texture
from .ytvis import NUM_CLIPS, annotate_clip, write_ytvis

__all__ = [
    "CATEGORIES",
    "CLIP_CATEGORIES",
    "NUM_CLIPS",
    "Category",
    "Clip",
    "ClipStyle",
    "Detour",
    "Dice",
    "Fade",
    "Motion",
    "Path",
    "Pose",
    "Rendered",
    "Scene",
    "ShapesStyle",
    "Sprite",
    "Swing",
    "Texture",
    "annotate",
    "annotate_clip",
    "mask_to_polygons",
    "render",
    "sample_clip",
    "sample_scene",
    "write_coco",
    "write_ytvis",
]

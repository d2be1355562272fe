"""Converters between annotation formats of videos, as functions on parsed json.

Everything that leaves here has passed :func:`check_ytvis` or was made of what has.
"""

from .coco_to_ytvis import coco_frames_to_ytvis
from .content import check_ytvis, write_annotation_json
from .filled_boxes import fill_boxes
from .mot import MOT_CLASSES, mot_to_ytvis
from .split import split_by_video
from .ytvis_to_coco import ytvis_to_coco_frames

__all__ = [
    "MOT_CLASSES",
    "check_ytvis",
    "coco_frames_to_ytvis",
    "fill_boxes",
    "mot_to_ytvis",
    "split_by_video",
    "write_annotation_json",
    "ytvis_to_coco_frames",
]

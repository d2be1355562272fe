"""Videos: data sets in the format of YouTube-VIS, training clips, lazily loaded test videos."""

from .clip_mapper import ClipMapper
from .frames import FrameSequence
from .register import register_vis_tiny, register_ytvis_instances
from .sampling import sample_frames
from .supervision import Supervision
from .ytvis import load_ytvis_instances

__all__ = [
    "ClipMapper",
    "FrameSequence",
    "Supervision",
    "load_ytvis_instances",
    "register_vis_tiny",
    "register_ytvis_instances",
    "sample_frames",
]

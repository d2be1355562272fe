"""Videos: data sets in the format of YouTube-VIS, training clips, lazily loaded test videos."""

from .builtin import register_builtin_videos
from .clip_mapper import ClipMapper
from .frames import FrameSequence
from .image_mapper import BoxImageMapper
from .ratio_sampler import RatioSampler
from .register import register_vis_tiny, register_ytvis_instances
from .sampling import sample_frames
from .supervision import Supervision
from .ytvis import load_ytvis_instances

__all__ = [
    "BoxImageMapper",
    "ClipMapper",
    "FrameSequence",
    "RatioSampler",
    "Supervision",
    "load_ytvis_instances",
    "register_builtin_videos",
    "register_vis_tiny",
    "register_ytvis_instances",
    "sample_frames",
]

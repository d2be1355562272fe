"""Ground truth of a clip.

Letters: N instances, T frames, H x W padded frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .affinities import ClipAffinities, clip_affinities
from .box_settings import PairwiseSettings, TemporalSettings
from .filled_boxes import ClipBoxes, clip_boxes

# What it takes to make the targets of a clip.
__all__ = [
    "ClipTargets",
    "PairwiseSettings",
    "TemporalSettings",
    "clip_affinities",
    "clip_boxes",
]


@dataclass
class ClipTargets:
    """Ground truth of one clip (an image is a clip of one frame).

    Attributes:
        labels: (N,) int64 class.
        boxes: (N, T, 4) xyxy in pixels of the padded frame, 0 where absent.
        present: (N, T) bool.
        supervision: "box" or "mask".
        clip_boxes: for supervision by boxes.
        affinities: for supervision by boxes.
        masks: (N, T, H, W) bool, for supervision by masks.
        is_image: whether the clip is a single image.
    """

    labels: torch.Tensor
    boxes: torch.Tensor
    present: torch.Tensor
    supervision: str = "box"
    clip_boxes: ClipBoxes | None = None
    affinities: ClipAffinities | None = None
    masks: torch.Tensor | None = None
    is_image: bool = False

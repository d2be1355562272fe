"""IoU of tracks: sums over the frames of a video, exact, from run-length encoded masks.

Shape shorthand: D detected tracks, G true tracks, T frames. An object that is absent from a frame
has ``None`` there, and area 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pycocotools.mask as mask_util

from .coco_overlaps import rle_areas

# More frames mean fewer calls; fewer frames mean that hopeless pairs are given up earlier.
_FRAMES_PER_CALL = 8


@dataclass(frozen=True)
class MaskTrack:
    """The masks of one object in one video.

    Attributes:
        rles: T compressed RLEs or None.
        areas: (T,) in pixels.
    """

    rles: list[dict | None]
    areas: np.ndarray

    @classmethod
    def from_rles(cls, rles: Sequence[dict | None]) -> MaskTrack:
        """Measure the areas of compressed RLEs or None."""
        areas = np.zeros(len(rles))
        areas[[x is not None for x in rles]] = rle_areas([x for x in rles if x is not None])
        return cls(list(rles), areas)


def mask_track_iou(
    detected: Sequence[MaskTrack], true: Sequence[MaskTrack], min_iou: float = 0.0
) -> np.ndarray:
    """Sum over the frames of the intersections, divided by that of the unions: (D, G).

    Args:
        detected: D tracks of one video, at least one.
        true: G tracks of the same video, at least one.
        min_iou: for speed, an IoU below this may be returned too small.
    """
    det_areas, gt_areas = (np.stack([x.areas for x in tracks]) for tracks in (detected, true))
    total = det_areas.sum(1)[:, None] + gt_areas.sum(1)
    # No intersection is larger than the smaller one of the two masks.
    limit = np.minimum(det_areas[:, None], gt_areas)
    remaining, intersection = limit.sum(2), np.zeros(total.shape)
    possible = _ratio(remaining, total) >= min_iou
    for start in range(0, limit.shape[2], _FRAMES_PER_CALL):
        frames = slice(start, start + _FRAMES_PER_CALL)
        compared = possible[..., None] & (limit[..., frames] > 0)
        remaining -= limit[..., frames].sum(2)
        if compared.any():
            _add_intersections(intersection, detected, true, compared, start)
            possible &= _ratio(intersection + remaining, total) >= min_iou
    return _ratio(intersection, total)


def box_track_iou(detected: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> np.ndarray:
    """The same for D and G tracks of boxes x, y, width, height: (T, 4) each; zeros where absent."""
    detected, true = np.stack(detected), np.stack(true)
    low = np.maximum(detected[:, None, :, :2], true[:, :, :2])
    detected_end, true_end = (x[..., :2] + x[..., 2:] for x in (detected, true))
    high = np.minimum(detected_end[:, None], true_end)
    intersection = np.prod(np.maximum(high - low, 0), axis=-1).sum(2)
    det_area, gt_area = (np.prod(x[..., 2:], axis=-1).sum(1) for x in (detected, true))
    return _ratio(intersection, det_area[:, None] + gt_area)


def _add_intersections(
    intersection: np.ndarray,
    detected: Sequence[MaskTrack],
    true: Sequence[MaskTrack],
    compared: np.ndarray,
    start: int,
) -> None:
    """Add the intersections of some frames to the (D, G) sums, in one call of pycocotools.

    It compares all detections with all ground truths, but skips masks of different sizes. So a
    width of its own for each frame (the runs do not depend on it) keeps the frames apart.

    Args:
        compared: (D, G, F) pairs that matter in frame start, start + 1, ...
    """
    rows, row_frames = np.nonzero(compared.any(1))
    columns, column_frames = np.nonzero(compared.any(0))
    # Of a crowd region, pycocotools returns intersection / area of the detection; -1 if skipped.
    share = mask_util.iou(
        _with_frame_as_width(detected, rows, start + row_frames),
        _with_frame_as_width(true, columns, start + column_frames),
        [1] * len(columns),
    )
    areas = np.array([detected[i].areas[t] for i, t in zip(rows, start + row_frames)])
    pixels = np.rint(np.maximum(share, 0) * areas[:, None])
    np.add.at(intersection, (rows[:, None], columns), pixels)


def _with_frame_as_width(
    tracks: Sequence[MaskTrack], indices: np.ndarray, frames: np.ndarray
) -> list[dict]:
    rles = [tracks[i].rles[t] for i, t in zip(indices.tolist(), frames.tolist())]
    return [
        {"size": [rle["size"][0], width], "counts": rle["counts"]}
        for rle, width in zip(rles, frames.tolist())
    ]


def _ratio(intersection: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Intersection over union, 0 where both tracks are empty."""
    union = total - intersection
    return np.divide(intersection, union, out=np.zeros(union.shape), where=union > 0)

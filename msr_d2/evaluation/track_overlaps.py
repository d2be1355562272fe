"""IoU of tracks: sums over the frames of a video, exact, from run-length encoded masks.

Shape shorthand: D detected tracks, G true tracks, T frames, F of them in one call. An object that
is absent from a frame has ``None`` there, and area 0.

What makes it fast: masks stay encoded, pycocotools compares those of many frames in one call, and
a pair of tracks is given up as soon as what is left of it cannot lift its IoU to the smallest
threshold; the frames with the largest masks decide that first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pycocotools.mask as mask_util

from .coco_overlaps import rle_areas


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
        return cls.from_many([rles])[0]

    @classmethod
    def from_many(cls, tracks: Sequence[Sequence[dict | None]]) -> list[MaskTrack]:
        """The same for many tracks, whose lengths may differ; faster than one by one."""
        flat = [rle for track in tracks for rle in track]
        areas = np.zeros(len(flat))
        areas[[x is not None for x in flat]] = rle_areas([x for x in flat if x is not None])
        ends = np.cumsum([len(track) for track in tracks], dtype=np.int64)
        return [cls(list(track), own) for track, own in zip(tracks, np.split(areas, ends))]


def mask_track_iou(
    detected: Sequence[MaskTrack],
    true: Sequence[MaskTrack],
    min_iou: float = 0.0,
    pairs: np.ndarray | None = None,
) -> np.ndarray:
    """Sum over the frames of the intersections, divided by that of the unions: (D, G).

    Args:
        detected: D tracks of one video, at least one.
        true: G tracks of the same video, at least one.
        min_iou: for speed, an IoU below this may be returned too small.
        pairs: (D, G) bool, those to compare, all by default; the others get 0.
    """
    det_areas, gt_areas = (np.stack([x.areas for x in tracks]) for tracks in (detected, true))
    both = det_areas[:, None] + gt_areas
    # No intersection is larger than the smaller one of the two masks.
    limit = np.minimum(det_areas[:, None], gt_areas)
    total, remaining = both.sum(2), limit.sum(2)
    intersection = np.zeros(total.shape)
    possible = (_ratio(remaining, total) >= min_iou) & (remaining > 0)
    if pairs is not None:
        possible &= pairs
    frames = np.argsort(-limit[possible].sum(0))
    while len(frames) and possible.any():
        count = _frames_per_call(possible, limit.shape[2], min_iou)
        now, frames = frames[:count], frames[count:]
        compared = possible[..., None] & (limit[..., now] > 0)
        if compared.any():
            pixels = _intersections(detected, true, now, compared, both[..., now])
            intersection += pixels.sum(2)
        remaining -= limit[..., now].sum(2)
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


def _frames_per_call(possible: np.ndarray, num_frames: int, min_iou: float) -> int:
    """How many frames to compare before the (D, G) possible pairs are looked at again.

    After a third of the frames, most pairs without overlap are out. And a call looks at the boxes
    of all masks of all its frames, a waste that should stay small beside the reading of the masks.
    """
    num_detected, num_true = possible.any(1).sum(), possible.any(0).sum()
    affordable = int(32 * (num_detected + num_true) / (num_detected * num_true))
    wanted = num_frames // 3 + 1 if min_iou else num_frames
    return max(4, min(wanted, affordable))


def _intersections(
    detected: Sequence[MaskTrack],
    true: Sequence[MaskTrack],
    frames: np.ndarray,
    compared: np.ndarray,
    both: np.ndarray,
) -> np.ndarray:
    """Intersections in pixels in F frames, in one call of pycocotools: (D, G, F).

    It compares all detections with all ground truths, but skips masks of different sizes. So a
    width of its own (the runs do not depend on it) for each frame, and in a frame for each group of
    tracks, keeps apart what need not be compared. No width is smaller than the true one, for boxes
    left of it would be made too large.

    Args:
        frames: (F,) indices.
        compared: (D, G, F) bool, the pairs that matter; others are 0 in the result.
        both: (D, G, F) sums of the two areas.
    """
    row_group, column_group = _groups(compared.any(2))
    rows, row_of = _with_own_widths(detected, compared.any(1), frames, row_group)
    columns, column_of = _with_own_widths(true, compared.any(0), frames, column_group)
    iou = mask_util.iou(rows, columns, [0] * len(columns))
    i, j, k = np.nonzero(compared)
    ratio = iou[row_of[i, k], column_of[j, k]]
    pixels = np.zeros(compared.shape)
    pixels[i, j, k] = np.rint(ratio / (1 + ratio) * both[i, j, k])
    return pixels


def _groups(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (D,) and (G,) of the connected parts of a graph with (D, G) edges; G at most."""
    linked = pairs.T @ pairs | np.eye(pairs.shape[1], dtype=bool)
    for _ in range(pairs.shape[1].bit_length()):
        linked = linked @ linked
    group = linked.argmax(1)
    return group[pairs.argmax(1)], group


def _with_own_widths(
    tracks: Sequence[MaskTrack], chosen: np.ndarray, frames: np.ndarray, group: np.ndarray
) -> tuple[list[dict], np.ndarray]:
    """RLEs of the chosen (track, frame) pairs, and the index (tracks, F) of each in this list."""
    track, time = np.nonzero(chosen)
    height, width = tracks[track[0]].rles[frames[time[0]]]["size"]
    widths = (width + time + len(frames) * group[track]).tolist()
    rles = [
        {"size": (height, own), "counts": tracks[i].rles[t]["counts"]}
        for i, t, own in zip(track.tolist(), frames[time].tolist(), widths)
    ]
    return rles, np.cumsum(chosen).reshape(chosen.shape) - 1


def _ratio(intersection: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Intersection over union, 0 where both tracks are empty."""
    union = total - intersection
    return np.divide(intersection, union, out=np.zeros(union.shape), where=union > 0)

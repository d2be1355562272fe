"""The overlaps of tracks in the official form: one pair of masks, one frame at a time.

It is what :mod:`msr_d2.evaluation.track_overlaps` is timed against, and an oracle of its tests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util


def iou_by_frame(detected: Sequence[dict | None], true: Sequence[dict | None]) -> float:
    """IoU of two tracks of T compressed RLEs or None: two merges for each frame with both."""
    intersection = union = 0.0
    for d, g in zip(detected, true):
        if d and g:
            intersection += float(mask_util.area(mask_util.merge([d, g], True)))
            union += float(mask_util.area(mask_util.merge([d, g], False)))
        elif d or g:
            union += float(mask_util.area(d or g))
    return intersection / union if union > 0 else 0.0


def mean_area_by_frame(track: Sequence[dict | None]) -> float:
    """Mean area in pixels over the frames in which the track has any; 0 if it has none."""
    areas = [int(mask_util.area(rle)) for rle in track if rle]
    areas = [x for x in areas if x]
    return float(np.mean(areas)) if areas else 0.0


def overlaps_by_pair(
    ground_truth: dict[str, Any], results: Sequence[dict]
) -> tuple[dict[tuple[int, int], float], list[float]]:
    """What :func:`msr_d2.evaluation.ytvis_overlaps` computes, pair by pair.

    Args:
        ground_truth: content of a json file in YouTube-VIS format, all masks compressed RLEs.
        results: N detected tracks.

    Returns:
        IoU by (index of the result, index of the annotation) for the pairs of one video and
        category; and the mean areas (N,) of the results.
    """
    truths = defaultdict(list)
    for j, truth in enumerate(ground_truth["annotations"]):
        truths[truth["video_id"], truth["category_id"]].append((j, truth["segmentations"]))
    ious = {}
    for i, result in enumerate(results):
        for j, track in truths[result["video_id"], result["category_id"]]:
            ious[i, j] = iou_by_frame(result["segmentations"], track)
    return ious, [mean_area_by_frame(x["segmentations"]) for x in results]

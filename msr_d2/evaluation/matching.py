"""Which detections find an object: the greedy matching of COCO.

It looks only at detections that overlap a ground truth, for all thresholds and area ranges at
once. For the letters of shapes see ``overlaps.py``.
"""

from __future__ import annotations

import numpy as np

from .overlaps import Overlaps, Protocol


def rank_in_image(overlaps: Overlaps, scores: np.ndarray) -> np.ndarray:
    """Rank (N,) of each detection among those of its image and category, from 0."""
    order = np.lexsort((-scores, overlaps.det_category, overlaps.det_image))
    image, category = overlaps.det_image[order], overlaps.det_category[order]
    position = np.arange(len(order))
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (image[1:] != image[:-1]) | (category[1:] != category[:-1])
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = position - np.maximum.accumulate(np.where(is_first, position, 0))
    return rank


def ignored_truths(overlaps: Overlaps, protocol: Protocol) -> np.ndarray:
    """Ground truths that nobody has to find, (A, M): outside the area range, or crowd regions."""
    return ~protocol.inside(overlaps.gt_area) | overlaps.gt_crowd


def match_all(
    overlaps: Overlaps, rank: np.ndarray, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Which detections are matched and which do not count, two bool arrays (A, T, N)."""
    outside = ~protocol.inside(overlaps.det_area)
    gt_ignored = ignored_truths(overlaps, protocol)
    shape = (len(outside), len(protocol.iou_thresholds), len(rank))
    matched = np.zeros(shape, dtype=bool)
    # An unmatched detection outside the area range is neither right nor wrong.
    ignored = np.broadcast_to(outside[:, None], shape).copy()
    for cell in overlaps.cells:
        rows = np.argsort(rank[cell.detections])[: protocol.max_detections[-1]]
        rows = rows[cell.ious[rows].max(axis=1) >= protocol.iou_thresholds[0]]
        if len(rows) == 0:
            continue
        cell_ignored = gt_ignored[:, cell.truths]
        crowd = overlaps.gt_crowd[cell.truths]
        match = _match_cell(cell.ious[rows], cell_ignored, crowd, protocol.iou_thresholds)
        found, columns = match >= 0, cell.detections[rows]
        area = np.arange(len(match))[:, None, None]
        matched[:, :, columns] = found
        ignored[:, :, columns] = np.where(found, cell_ignored[area, match], ignored[:, :, columns])
    return matched, ignored


def _match_cell(
    ious: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Greedy matching of one cell: each detection takes the free ground truth it overlaps most.

    A ground truth that counts is preferred to an ignored one, and of equal overlaps the last is
    taken. A crowd region can be taken many times.

    Args:
        ious: (D, G), the detections in the order of their rank.
        ignored: (A, G) bool.
        crowd: (G,) bool.
        thresholds: (T,).

    Returns:
        (A, T, D) index of the matched ground truth, or -1.
    """
    num_areas, num_truths = ignored.shape
    thresholds = np.minimum(thresholds, 1 - 1e-10)[:, None]
    free = np.ones((num_areas, len(thresholds), num_truths), dtype=bool)
    match = np.full((num_areas, len(thresholds), len(ious)), -1)
    bonus = np.where(ignored, 0, num_truths)[:, None]
    # place[d, g]: how many ground truths detection d overlaps less (the stable sort breaks ties).
    place = np.argsort(np.argsort(ious, axis=1, kind="stable"), axis=1)
    for d, iou in enumerate(ious):
        value = np.where(free & (iou >= thresholds), place[d] + bonus, -1)
        best = value.argmax(axis=2)
        found = value.max(axis=2) >= 0
        match[:, :, d] = np.where(found, best, -1)
        area, threshold = np.nonzero(found & ~crowd[best])
        free[area, threshold, best[area, threshold]] = False
    return match

"""What an evaluation needs to know besides the scores: its settings, and who overlaps whom.

Shape shorthand:
    N, M: all detections, all ground truths of the data set
    D, G: detections and ground truths of one category in one image (a cell)
    T, R: IoU thresholds (10), recall points (101)
    K, A, L: categories, area ranges (4), limits on the detections per image (3)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

COCO_AREAS = {
    "all": (0, 1e5**2),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e5**2),
}


@dataclass(frozen=True)
class Protocol:
    """The settings of an evaluation.

    Attributes:
        areas: smallest and largest area (both included) of "all", "small", "medium", "large", in
            square pixels.
        max_detections: at most so many detections per image and category; AP uses the last one.
        iou_thresholds: (T,) ascending.
        recall_points: (R,) ascending.
    """

    areas: Mapping[str, tuple[float, float]] = field(default_factory=lambda: dict(COCO_AREAS))
    max_detections: tuple[int, ...] = (1, 10, 100)
    iou_thresholds: np.ndarray = field(default_factory=lambda: np.linspace(0.5, 0.95, 10))
    recall_points: np.ndarray = field(default_factory=lambda: np.linspace(0.0, 1.0, 101))

    def __post_init__(self):
        limits = tuple(self.max_detections)
        if len(limits) != 3 or min(limits) < 1:
            raise ValueError(f"max_detections is {limits}: give three positive numbers")
        object.__setattr__(self, "max_detections", tuple(sorted(limits)))

    def inside(self, areas: np.ndarray) -> np.ndarray:
        """Which of the areas (X,) lie in which range: bool array of shape (A, X)."""
        ranges = self.areas.values()
        return np.stack([(areas >= low) & (areas <= high) for low, high in ranges])


@dataclass(frozen=True)
class Cell:
    """One category in one image, where it has both detections and ground truth.

    Attributes:
        detections: (D,) indices into the detections of the data set.
        truths: (G,) indices into its ground truths.
        ious: (D, G); with a crowd region it is the share of the detection inside the region.
    """

    detections: np.ndarray
    truths: np.ndarray
    ious: np.ndarray


@dataclass(frozen=True)
class Overlaps:
    """Detections, ground truths and their overlaps: everything but the scores.

    Attributes:
        det_image, det_category, det_area: (N,) image index, category index and area.
        gt_image, gt_category, gt_area, gt_crowd: (M,) the same, and whether it is a crowd region.
        cells: where detections can match.
        num_categories: K.
    """

    det_image: np.ndarray
    det_category: np.ndarray
    det_area: np.ndarray
    gt_image: np.ndarray
    gt_category: np.ndarray
    gt_area: np.ndarray
    gt_crowd: np.ndarray
    cells: list[Cell]
    num_categories: int

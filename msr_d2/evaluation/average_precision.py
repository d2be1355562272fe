"""Average precision by the rules of COCO, from overlaps that are computed once.

Several scores can rank the same detections, and images and videos share one implementation: what
differs between them is only how the overlaps come about. The numbers are those of pycocotools'
``COCOeval`` to the last digit. Matching looks only at detections that overlap a ground truth, for
all thresholds and area ranges at once, which makes it much faster.

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


@dataclass(frozen=True)
class EvaluationResult:
    """Precision and recall of one ranking; -1 where a category has no ground truth.

    Attributes:
        precision: (T, R, K, A, L).
        recall: (T, K, A, L).
        protocol: the settings.
    """

    precision: np.ndarray
    recall: np.ndarray
    protocol: Protocol

    @property
    def eval(self) -> dict[str, np.ndarray]:
        """The arrays under the names of ``COCOeval.eval``."""
        return {"precision": self.precision, "recall": self.recall}

    @property
    def stats(self) -> np.ndarray:
        """The twelve numbers of ``COCOeval.stats``, in [0, 1]; -1 for undefined ones."""
        precision, recall = self.precision, self.recall
        at_iou = [self.protocol.iou_thresholds == value for value in (0.5, 0.75)]
        samples = [precision[..., 0, -1]]
        samples += [precision[chosen][..., 0, -1] for chosen in at_iou]
        samples += [precision[..., area, -1] for area in (1, 2, 3)]
        samples += [recall[..., 0, limit] for limit in (0, 1, 2)]
        samples += [recall[..., area, -1] for area in (1, 2, 3)]
        return np.array([_mean_of_defined(x) for x in samples])

    def metrics(self) -> dict[str, float]:
        """``stats`` by name, in percent; NaN for undefined ones."""
        small, middle, large = self.protocol.max_detections
        names = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
        names += [f"AR{small}", f"AR{middle}", f"AR{large}", "ARs", "ARm", "ARl"]
        return {
            name: float(value * 100 if value >= 0 else "nan")
            for name, value in zip(names, self.stats)
        }

    def category_ap(self) -> np.ndarray:
        """AP of each category (K,), in percent; NaN where it has no ground truth."""
        per_category = np.moveaxis(self.precision[..., 0, -1], 2, 0)
        values = np.array([_mean_of_defined(x) for x in per_category])
        return np.where(values >= 0, values * 100, np.nan)


def average_precision(
    overlaps: Overlaps, scores: np.ndarray, protocol: Protocol | None = None
) -> EvaluationResult:
    """Match, accumulate and summarise one ranking of the detections.

    Args:
        overlaps: the detections and what they overlap.
        scores: (N,) the higher, the earlier; equal scores keep the order of the detections.
        protocol: the settings, COCO's by default.
    """
    protocol = protocol or Protocol()
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != overlaps.det_image.shape:
        raise ValueError(
            f"expected one score per detection {overlaps.det_image.shape}, got {scores.shape}"
        )
    rank = rank_in_image(overlaps, scores)
    matched, ignored = _match_all(overlaps, rank, protocol)
    return _accumulate(overlaps, scores, rank, matched, ignored, protocol)


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


def _ignored_truths(overlaps: Overlaps, protocol: Protocol) -> np.ndarray:
    """Ground truths that nobody has to find, (A, M): outside the area range, or crowd regions."""
    return ~protocol.inside(overlaps.gt_area) | overlaps.gt_crowd


def _match_all(
    overlaps: Overlaps, rank: np.ndarray, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Which detections are matched and which do not count, two bool arrays (A, T, N)."""
    outside = ~protocol.inside(overlaps.det_area)
    gt_ignored = _ignored_truths(overlaps, protocol)
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


def _accumulate(
    overlaps: Overlaps,
    scores: np.ndarray,
    rank: np.ndarray,
    matched: np.ndarray,
    ignored: np.ndarray,
    protocol: Protocol,
) -> EvaluationResult:
    """Precision and recall over all images, from the fate of each detection."""
    shape = (overlaps.num_categories, len(protocol.areas), len(protocol.max_detections))
    num_thresholds, num_points = len(protocol.iou_thresholds), len(protocol.recall_points)
    precision = -np.ones((num_thresholds, num_points, *shape))
    recall = -np.ones((num_thresholds, *shape))

    wanted = ~_ignored_truths(overlaps, protocol)
    order = np.lexsort((overlaps.det_image, -scores, overlaps.det_category))
    starts = np.searchsorted(overlaps.det_category[order], np.arange(shape[0] + 1))
    for k in range(shape[0]):
        chosen = order[starts[k] : starts[k + 1]]
        num_wanted = wanted[:, overlaps.gt_category == k].sum(axis=1)
        for a in np.flatnonzero(num_wanted):
            right = matched[a][:, chosen] & ~ignored[a][:, chosen]
            wrong = ~matched[a][:, chosen] & ~ignored[a][:, chosen]
            for limit_index, limit in enumerate(protocol.max_detections):
                kept = rank[chosen] < limit
                precision[:, :, k, a, limit_index], recall[:, k, a, limit_index] = _curve(
                    right[:, kept], wrong[:, kept], num_wanted[a], protocol.recall_points
                )
    return EvaluationResult(precision, recall, protocol)


def _curve(
    right: np.ndarray, wrong: np.ndarray, num_wanted: int, recall_points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolated precision (T, R) and final recall (T,) of ranked detections, (T, D) bools."""
    num_right = np.cumsum(right, axis=1).astype(np.float64)
    num_wrong = np.cumsum(wrong, axis=1).astype(np.float64)
    recall = num_right / num_wanted
    precision = num_right / (num_wrong + num_right + np.spacing(1))
    # The precision at a recall is the best one at this recall or any higher one.
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    precision = np.pad(precision, ((0, 0), (0, 1)))
    reached = np.stack([np.searchsorted(x, recall_points, side="left") for x in recall])
    final = recall[:, -1] if recall.shape[1] else np.zeros(len(recall))
    return np.take_along_axis(precision, reached, axis=1), final


def _mean_of_defined(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(np.mean(values)) if values.size else -1.0

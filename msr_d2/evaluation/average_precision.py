"""Average precision by the rules of COCO, from overlaps that are computed once.

Several scores can rank the same detections, and images and videos share one implementation: what
differs between them is only how the overlaps come about. The numbers are those of pycocotools'
``COCOeval`` to the last digit. For the letters of shapes see ``overlaps.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .matching import ignored_truths, match_all, rank_in_image
from .overlaps import Overlaps, Protocol


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
    matched, ignored = match_all(overlaps, rank, protocol)
    return _accumulate(overlaps, scores, rank, matched, ignored, protocol)


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

    wanted = ~ignored_truths(overlaps, protocol)
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

"""Mask AP of results that carry a mask score, beside the mask AP of the class score.

Result entries are those of COCO (``image_id``, ``category_id``, ``segmentation``, ``score``, where
``score`` is the class score) with ``mask_score``, and ``mask_iou`` if it is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .average_precision import EvaluationResult, average_precision
from .mask_iou_statistics import correlation, oracle_scores, true_mask_iou
from .overlaps import Overlaps, Protocol

GAIN_METRICS = ("AP", "AP50", "AP75")


@dataclass(frozen=True)
class MaskScoringResults:
    """What one set of overlaps tells about mask scores.

    Attributes:
        rankings: ``segm`` (ranked by the mask score), ``segm_class_score`` and, if asked for,
            ``segm_oracle``.
        pairs: arrays (N,), one entry per detection: ``class_score``, ``mask_iou`` (predicted),
            ``mask_score``, ``true_mask_iou``, ``category_id``, ``image_id``.
    """

    rankings: dict[str, EvaluationResult]
    pairs: dict[str, np.ndarray]

    def summary(self) -> dict[str, float]:
        """The gain of the mask score in AP points, and correlations with the true MaskIoU.

        ``correlation`` is that of the predicted MaskIoU over all detections, of which those that
        overlap nothing have a true MaskIoU of 0; ``correlation_overlapping`` leaves these out.
        """
        by_mask, by_class = (self.rankings[name].metrics() for name in ("segm", "segm_class_score"))
        result = {f"{name}_gain": by_mask[name] - by_class[name] for name in GAIN_METRICS}
        true_iou, overlapping = self.pairs["true_mask_iou"], self.pairs["true_mask_iou"] > 0
        mask_iou = self.pairs["mask_iou"]
        result["correlation"] = correlation(mask_iou, true_iou)
        result["correlation_overlapping"] = correlation(
            mask_iou[overlapping], true_iou[overlapping]
        )
        for name in ("class_score", "mask_score"):
            result[f"correlation_{name}"] = correlation(self.pairs[name], true_iou)
        result["num_pairs"] = len(true_iou)
        return result


def evaluate_mask_scores(
    overlaps: Overlaps, results: Sequence[dict], protocol: Protocol, oracle: bool = False
) -> MaskScoringResults:
    """Rank the same detections by mask score, class score and, on request, by the oracle score.

    Args:
        overlaps: of the masks of ``results``.
        results: N entries as described at the top of this file.
        protocol: the settings of the evaluation.
        oracle: also evaluate :func:`oracle_scores` (Table 7 of the paper).
    """
    pairs = mask_score_pairs(results, true_mask_iou(overlaps))
    scores = {"segm": pairs["mask_score"], "segm_class_score": pairs["class_score"]}
    if oracle:
        scores["segm_oracle"] = oracle_scores(
            pairs["class_score"], pairs["mask_score"], pairs["true_mask_iou"]
        )
    rankings = {name: average_precision(overlaps, x, protocol) for name, x in scores.items()}
    return MaskScoringResults(rankings, pairs)


def mask_score_pairs(results: Sequence[dict], true_iou: np.ndarray) -> dict[str, np.ndarray]:
    """Scores beside the true MaskIoU, see :class:`MaskScoringResults`."""

    def column(key, default=np.nan):
        return np.array([x.get(key, default) for x in results], dtype=np.float64)

    return {
        "class_score": column("score"),
        "mask_iou": column("mask_iou"),
        "mask_score": column("mask_score"),
        "true_mask_iou": true_iou,
        "category_id": np.array([x["category_id"] for x in results], dtype=np.int64),
        "image_id": np.array([x["image_id"] for x in results]),
    }


def segmentation_results(results: Sequence[dict]) -> list[dict]:
    """Results for the segmentation track of a test server: ``score`` is the mask score.

    Boxes are left out, because pycocotools would take their areas for those of the masks.
    """
    return [
        {
            "image_id": x["image_id"],
            "category_id": x["category_id"],
            "segmentation": x["segmentation"],
            "score": x["mask_score"],
        }
        for x in results
    ]

"""How well scores tell the quality of masks (arXiv 1903.00241, Sec. 4.4, Fig. 2 and Table 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..layers.statistics import mean_per_bin, pearson_correlation
from .overlaps import Overlaps

FIGURE2_EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def true_mask_iou(overlaps: Overlaps) -> np.ndarray:
    """True MaskIoU of each detection, (N,), in [0, 1].

    The paper does not say which ground truth a detection is compared with. Here it is the one of
    its image and category with the highest mask IoU; crowd regions are no objects and are left
    out. Several detections may share a ground truth: a duplicate has a good mask, too. Detections
    that overlap nothing have 0.

    Args:
        overlaps: of masks, see :func:`coco_overlaps`.
    """
    best = np.zeros(len(overlaps.det_image))
    for cell in overlaps.cells:
        objects = cell.ious[:, ~overlaps.gt_crowd[cell.truths]]
        best[cell.detections] = objects.max(axis=1, initial=0.0)
    return best


def oracle_scores(
    class_scores: np.ndarray, mask_scores: np.ndarray, true_iou: np.ndarray
) -> np.ndarray:
    """Scores of a perfect MaskIoU head, the upper bound of Table 7.

    The true MaskIoU replaces the predicted one where it is positive; detections without any
    overlap keep the mask score that was predicted. All arrays have shape (N,).
    """
    return np.where(true_iou > 0, class_scores * true_iou, mask_scores)


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation coefficient over the pairs in which both numbers are finite.

    Returns:
        a number in [-1, 1]; NaN where it is undefined: fewer than two pairs, or a constant sample.
    """
    first, second = (torch.as_tensor(np.asarray(x, dtype=np.float64)) for x in (first, second))
    finite = first.isfinite() & second.isfinite()
    return pearson_correlation(first[finite], second[finite])


def figure2_table(
    pairs: Mapping[str, np.ndarray], min_class_score: float = 0.5, min_iou: float = 0.5
) -> dict[str, np.ndarray]:
    """Mean class score and mean mask score per bin of true MaskIoU: the bars of Fig. 2.

    Args:
        pairs: arrays (N,) ``class_score``, ``mask_score`` and ``true_mask_iou``.
        min_class_score: only detections with a higher class score are counted.
        min_iou: only detections with a higher true MaskIoU are counted.

    Returns:
        ``edges`` (B + 1,), ``count``, ``class_score`` and ``mask_score`` (B,).
    """
    chosen = (pairs["class_score"] > min_class_score) & (pairs["true_mask_iou"] > min_iou)
    true_iou = pairs["true_mask_iou"][chosen]
    table = {"edges": np.array(FIGURE2_EDGES)}
    for key in ("class_score", "mask_score"):
        table[key], table["count"] = mean_per_bin(true_iou, pairs[key][chosen], FIGURE2_EDGES)
    return table


def format_figure2_table(table: Mapping[str, np.ndarray]) -> str:
    """The result of :func:`figure2_table` as lines of text."""
    lines = ["true MaskIoU | detections | mean class score | mean mask score"]
    for i, count in enumerate(table["count"]):
        low, high = table["edges"][i : i + 2]
        lines.append(
            f"{low:.1f} - {high:.1f}    | {count:10d} | {table['class_score'][i]:16.3f} | "
            f"{table['mask_score'][i]:15.3f}"
        )
    return "\n".join(lines)

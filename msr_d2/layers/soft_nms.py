"""Soft-NMS (Bodla et al., arXiv 1704.04503), which Mask Scoring R-CNN uses at test time."""

from __future__ import annotations

import torch
from torchvision.ops import box_iou

SOFT_NMS_METHODS = ("linear", "gaussian")


def soft_nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    *,
    method: str = "gaussian",
    sigma: float = 0.6,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.001,
    topk: int = 100,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep the best boxes of all classes, lowering the scores of those that overlap better ones.

    Boxes of different classes do not influence each other. Scores only ever fall, so the boxes come
    out in the order of their final scores and ``topk`` steps give the same result as Soft-NMS of
    each class followed by the selection of the ``topk`` best. No step waits for the device.

    Args:
        boxes: (M, 4) boxes as (x1, y1, x2, y2).
        scores: (M,) class scores in [0, 1].
        classes: (M,) class of each box.
        method: "gaussian" multiplies the scores by exp(-iou^2 / sigma), "linear" by (1 - iou)
            where iou is above ``iou_threshold``.
        sigma: width of the Gaussian.
        iou_threshold: used by "linear" only.
        score_threshold: boxes whose score falls to this or below are dropped; not negative.
        topk: number of boxes to keep at most; all when negative.

    Returns:
        Indices of the kept boxes (J,) and their lowered scores (J,), best first.

    Raises:
        ValueError: for an unknown method.
    """
    if method not in SOFT_NMS_METHODS:
        raise ValueError(f"Soft-NMS method {method!r} is unknown: use one of {SOFT_NMS_METHODS}")
    remaining = scores.float().clone()
    steps = len(boxes) if topk < 0 else min(topk, len(boxes))
    kept = torch.zeros(steps, dtype=torch.long, device=boxes.device)
    kept_scores = remaining.new_zeros(steps)
    boxes = boxes.float()
    for step in range(steps):
        score, best = remaining.max(dim=0, keepdim=True)  # (1,): an index without axis would wait
        kept[step : step + 1], kept_scores[step : step + 1] = best, score
        iou = box_iou(boxes.index_select(0, best), boxes)[0]
        decay = _decay(iou, method, sigma, iou_threshold)
        same_class = classes == classes.index_select(0, best)
        remaining = torch.where(same_class, remaining * decay, remaining)
        remaining = remaining.index_fill(0, best, -1.0)  # taken: never the maximum again
    valid = kept_scores > score_threshold
    return kept[valid], kept_scores[valid]


def _decay(iou: torch.Tensor, method: str, sigma: float, iou_threshold: float) -> torch.Tensor:
    if method == "gaussian":
        return torch.exp(-iou.square() / sigma)
    return torch.where(iou > iou_threshold, 1 - iou, torch.ones_like(iou))

"""Matching by drawing boxes and sampling points: what the closed form is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F


def filled_boxes(logits: torch.Tensor) -> torch.Tensor:
    """The box around each predicted mask (logit > 0), filled.

    Args:
        logits: (..., h, w).

    Returns:
        (..., h, w) float of 0 and 1; 0 everywhere for an empty mask.
    """
    mask = logits.sigmoid() > 0.5
    rows, columns = mask.any(-1), mask.any(-2)
    y = torch.arange(rows.shape[-1], device=logits.device)
    x = torch.arange(columns.shape[-1], device=logits.device)
    top, bottom = _limits(rows)
    left, right = _limits(columns)
    inside = (y >= top) & (y <= bottom)
    return (inside[..., None] & ((x >= left) & (x <= right))[..., None, :]).float()


def _limits(occupied: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last True of the last axis, (..., 1); an empty range if there is none."""
    count = occupied.shape[-1]
    first = occupied.int().argmax(-1, keepdim=True)
    last = count - 1 - occupied.flip(-1).int().argmax(-1, keepdim=True)
    empty = ~occupied.any(-1, keepdim=True)
    return first.masked_fill(empty, count), last.masked_fill(empty, -1)


def sampled_dice_cost(
    logits: torch.Tensor, boxes: torch.Tensor, num_points: int = 20000
) -> torch.Tensor:
    """Dice of filled boxes at random points that all queries, instances and frames share.

    Args:
        logits: (Q, T, h, w) mask logits.
        boxes: (N, T, H, W) float, filled true boxes at any resolution.
        num_points: points of a frame.

    Returns:
        (Q, N).
    """
    points = torch.rand(1, num_points, 2, device=logits.device)
    predicted = _sample(filled_boxes(logits), points)
    truth = _sample(boxes, points)
    overlap = predicted @ truth.T
    total = predicted.sum(-1)[:, None] + truth.sum(-1)
    return 1 - (2 * overlap + 1) / (total + 1)


def _sample(tubes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    grid = 2 * points.expand(len(tubes), -1, -1)[:, None] - 1
    return F.grid_sample(tubes, grid, align_corners=False).flatten(1)


def match_by_points(
    class_logits: Sequence[torch.Tensor],
    mask_logits: Sequence[torch.Tensor],
    labels: torch.Tensor,
    boxes: torch.Tensor,
    num_points: int = 20000,
) -> list[torch.Tensor]:
    """Match a clip output by output, each with a copy to the host of its own.

    Args:
        class_logits: L times (Q, K + 1).
        mask_logits: L times (Q, T, h, w).
        labels: (N,).
        boxes: (N, T, H, W), as above.

    Returns:
        L times (N,) queries.
    """
    result = []
    for classes, masks in zip(class_logits, mask_logits):
        cost = -2 * classes.softmax(-1)[:, labels] + 5 * sampled_dice_cost(masks, boxes, num_points)
        rows, columns = linear_sum_assignment(cost.cpu())
        queries = torch.empty(len(labels), dtype=torch.int64)
        queries[torch.from_numpy(columns)] = torch.from_numpy(rows)
        result.append(queries)
    return result

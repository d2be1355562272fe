"""Losses at sampled points for clips with masks, as in Mask2Former-VIS (arXiv 2112.10764).

Masks are compared at a few thousand points instead of at all pixels, most of them where the
prediction is uncertain (PointRend, arXiv 1912.08193, Sec. 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from torch.nn import functional as F

from ..layers.precision import at_least_float32


@dataclass(frozen=True)
class PointSettings:
    """How many points, and where.

    Attributes:
        num_points: points of a mask.
        oversample: random candidates for each uncertain point, at least 1.
        importance: share of the points that are the most uncertain candidates, in [0, 1].
    """

    num_points: int = 112 * 112
    oversample: float = 3.0
    importance: float = 0.75

    def __post_init__(self) -> None:
        if self.num_points < 1:
            raise ValueError(f"TRAIN_NUM_POINTS is {self.num_points}; it must be at least 1")
        if self.oversample < 1:
            raise ValueError(f"OVERSAMPLE_RATIO is {self.oversample}; it must be at least 1")
        if not 0 <= self.importance <= 1:
            raise ValueError(f"IMPORTANCE_SAMPLE_RATIO is {self.importance}; it must be in [0, 1]")

    @classmethod
    def from_config(cls, former: CfgNode) -> PointSettings:
        """From ``cfg.MODEL.MASK_FORMER``."""
        return cls(former.TRAIN_NUM_POINTS, former.OVERSAMPLE_RATIO, former.IMPORTANCE_SAMPLE_RATIO)


def point_sample(planes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Values of planes at points, bilinear, zero outside.

    Args:
        planes: (P, C, h, w) float; the C planes share their points.
        points: (P, K, 2) x and y relative to the plane: (0, 0) is the outer corner of the first
            cell, (1, 1) that of the last.

    Returns:
        (P, C, K).
    """
    grid = 2 * points[:, None] - 1
    return F.grid_sample(planes, grid, mode="bilinear", align_corners=False)[:, :, 0]


@torch.no_grad()
def uncertain_points(logits: torch.Tensor, settings: PointSettings) -> torch.Tensor:
    """Random points, most of them where a mask is closest to undecided (logit 0).

    Args:
        logits: (P, h, w) float32.

    Returns:
        (P, num_points, 2), relative x and y in [0, 1].
    """
    planes = len(logits)
    uncertain = int(settings.importance * settings.num_points)
    candidates = int(settings.num_points * settings.oversample)
    points = torch.rand(planes, candidates, 2, device=logits.device)
    certainty = point_sample(logits[:, None], points)[:, 0].abs()
    chosen = certainty.topk(uncertain, dim=1, largest=False, sorted=False).indices
    chosen = points.gather(1, chosen[..., None].expand(-1, -1, 2))
    rest = torch.rand(planes, settings.num_points - uncertain, 2, device=logits.device)
    return torch.cat([chosen, rest], dim=1)


def mask_point_losses(
    logits: torch.Tensor, masks: torch.Tensor, num_masks: torch.Tensor, settings: PointSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Binary cross-entropy and dice loss at sampled points.

    The mean over the points of each frame, summed over instances and frames and divided by
    `num_masks`: the official code does not divide by the number of frames either.

    Args:
        logits: (L, N, T, h, w) of the matched queries, for L outputs and N instances in T frames.
        masks: (N, T, H, W) bool; the same area as the logits, at any resolution.
        num_masks: scalar, number of instances to divide by.

    Returns:
        Both losses, (L,) each, in float32; a connected zero for N = 0.
    """
    with torch.autocast(logits.device.type, enabled=False):
        truth = masks.flatten(0, 1)[:, None].float()
        # Output by output: the points of all of them at once would take a gigabyte.
        losses = [_output_losses(x.flatten(0, 1), truth, settings) for x in logits.unbind()]
        bce, dice = torch.stack(losses, dim=1) / num_masks
    return bce, dice


def _output_losses(
    logits: torch.Tensor, truth: torch.Tensor, settings: PointSettings
) -> torch.Tensor:
    """(2,) cross-entropy and dice of (P, h, w) logits and (P, 1, H, W) truth, sums over planes."""
    logits = at_least_float32(logits)
    points = uncertain_points(logits, settings)
    predicted = point_sample(logits[:, None], points)[:, 0]
    truth = point_sample(truth, points)[:, 0]
    bce = F.binary_cross_entropy_with_logits(predicted, truth, reduction="none").mean(1)
    return torch.stack([bce.sum(), _dice_loss(predicted.sigmoid(), truth).sum()])


def _dice_loss(probability: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    overlap = (probability * truth).sum(1)
    return 1 - (2 * overlap + 1) / (probability.sum(1) + truth.sum(1) + 1)

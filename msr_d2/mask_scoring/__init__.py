"""Mask Scoring R-CNN (arXiv 1903.00241): masks ranked by how well they fit."""

from .branch import MaskScoringMixin
from .config import add_mask_scoring_config
from .heads import ROI_MASKIOU_HEAD_REGISTRY, MaskIoUHead, build_maskiou_head
from .inference import add_mask_scores
from .legacy import LegacyMaskScoringROIHeads
from .losses import mask_iou_loss
from .roi_heads import (
    CascadeMaskScoringROIHeads,
    MaskScoringROIHeads,
    Res5MaskScoringROIHeads,
)
from .targets import mask_areas, mask_iou_targets
from .test_time_augmentation import MaskScoringTTA

__all__ = [
    "ROI_MASKIOU_HEAD_REGISTRY",
    "CascadeMaskScoringROIHeads",
    "LegacyMaskScoringROIHeads",
    "MaskIoUHead",
    "MaskScoringMixin",
    "MaskScoringROIHeads",
    "MaskScoringTTA",
    "Res5MaskScoringROIHeads",
    "add_mask_scores",
    "add_mask_scoring_config",
    "build_maskiou_head",
    "mask_areas",
    "mask_iou_loss",
    "mask_iou_targets",
]

"""Variants of detectron2's own modules that several systems share."""

from .deformable import (
    DeformableBottleneckBlock,
    build_deformable_resnet_backbone,
    build_deformable_resnet_fpn_backbone,
    check_deformable_config,
)
from .legacy import (
    LegacyAnchorGenerator,
    LegacyFastRCNNOutputLayers,
    LegacyGeneralizedRCNN,
    LegacyROIPooler,
    LegacyRPN,
    check_legacy_config,
)
from .swin import D2SwinTransformer

__all__ = [
    "D2SwinTransformer",
    "DeformableBottleneckBlock",
    "LegacyAnchorGenerator",
    "LegacyFastRCNNOutputLayers",
    "LegacyGeneralizedRCNN",
    "LegacyROIPooler",
    "LegacyRPN",
    "build_deformable_resnet_backbone",
    "build_deformable_resnet_fpn_backbone",
    "check_deformable_config",
    "check_legacy_config",
]

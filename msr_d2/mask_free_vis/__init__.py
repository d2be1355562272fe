"""MaskFreeVIS: video instance segmentation trained from boxes only (arXiv 2303.15904)."""

from .criterion import VideoSetCriterion
from .heads import MaskFormerHead
from .losses import pairwise_color_loss, projection_loss, temporal_knn_patch_loss
from .meta_arch import MaskFreeVIS
from .pixel_decoder import PIXEL_DECODER_REGISTRY, MSDeformAttnPixelDecoder
from .transformer_decoder import (
    TRANSFORMER_DECODER_REGISTRY,
    VideoMultiScaleMaskedTransformerDecoder,
)

__all__ = [
    "PIXEL_DECODER_REGISTRY",
    "TRANSFORMER_DECODER_REGISTRY",
    "MSDeformAttnPixelDecoder",
    "MaskFormerHead",
    "MaskFreeVIS",
    "VideoMultiScaleMaskedTransformerDecoder",
    "VideoSetCriterion",
    "pairwise_color_loss",
    "projection_loss",
    "temporal_knn_patch_loss",
]

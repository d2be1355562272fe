"""Pixel decoder and transformer decoder together: the ``sem_seg_head`` of the family."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from fvcore.common.registry import Registry
from torch import nn

from .pixel_decoder import PIXEL_DECODER_REGISTRY
from .transformer_decoder import TRANSFORMER_DECODER_REGISTRY


class MaskFormerHead(nn.Module):
    """`pixel_decoder` and `predictor` (the transformer decoder), with the family's names."""

    @configurable
    def __init__(self, *, pixel_decoder: nn.Module, predictor: nn.Module, num_classes: int):
        """
        Args:
            pixel_decoder: from features of frames to maps; see ``MSDeformAttnPixelDecoder``.
            predictor: from maps to queries; see ``VideoMultiScaleMaskedTransformerDecoder``.
            num_classes: K.
        """
        super().__init__()
        self.pixel_decoder, self.predictor = pixel_decoder, predictor
        self.num_classes = num_classes

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Read ``MODEL.SEM_SEG_HEAD`` and ``MODEL.MASK_FORMER``.

        Raises:
            ValueError: for names that are not registered, or features that do not exist.
        """
        head, former = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
        missing = [name for name in head.IN_FEATURES if name not in input_shape]
        if missing:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES names {missing}, but the backbone gives "
                f"{sorted(input_shape)}: see MODEL.RESNETS.OUT_FEATURES or MODEL.SWIN.OUT_FEATURES"
            )
        if former.TRANSFORMER_IN_FEATURE != "multi_scale_pixel_decoder":
            raise ValueError(
                f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE {former.TRANSFORMER_IN_FEATURE!r} is "
                "not supported: set it to 'multi_scale_pixel_decoder'"
            )
        pixel_decoder = _registered(
            PIXEL_DECODER_REGISTRY, head.PIXEL_DECODER_NAME, "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME"
        )
        predictor = _registered(
            TRANSFORMER_DECODER_REGISTRY,
            former.TRANSFORMER_DECODER_NAME,
            "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME",
        )
        return {
            "pixel_decoder": pixel_decoder(cfg, input_shape),
            "predictor": predictor(cfg, head.CONVS_DIM),
            "num_classes": head.NUM_CLASSES,
        }

    def forward(self, features: dict[str, torch.Tensor], num_frames: int) -> dict:
        """Predict from the features of B clips of T frames.

        Args:
            features: maps (B * T, channels, ·, ·) of the backbone; frames of a clip follow each
                other.
            num_frames: T.

        Returns:
            See ``VideoMultiScaleMaskedTransformerDecoder.forward``.
        """
        mask_features, multi_scale = self.pixel_decoder(features)
        return self.predictor(multi_scale, mask_features, num_frames)


def _registered(registry: Registry, name: str, key: str):
    if name not in registry:
        known = sorted(known for known, _ in registry)
        raise ValueError(f"{key} {name!r} is unknown: use one of {known}")
    return registry.get(name)

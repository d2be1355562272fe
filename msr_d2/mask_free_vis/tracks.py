"""A clip after backbone, pixel decoder and transformer decoder: all that masks are made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from .heads import MaskFormerHead
from .transformer_decoder import resize_mask_features


@dataclass(frozen=True)
class EncodedClip:
    """What is left of a clip of T frames when its pictures have been seen.

    Attributes:
        class_logits: (Q, K + 1), the last class is "no object".
        mask_embed: (Q, C); its product with `mask_features` is a mask as logits.
        mask_features: of the frames in their batches, each (F, C, h, w).
        image_size, padded_size: (height, width) of the network's input without and with padding.
    """

    class_logits: torch.Tensor
    mask_embed: torch.Tensor
    mask_features: list[torch.Tensor]
    image_size: tuple[int, int]
    padded_size: tuple[int, int]


def encode_clip(
    batches: Iterable[torch.Tensor],
    backbone: nn.Module,
    head: MaskFormerHead,
    image_size: tuple[int, int],
) -> EncodedClip:
    """Run the network on a clip whose frames come in batches.

    Frames only meet in the transformer decoder, so the result does not depend on the batches (up
    to rounding). Backbone features live as long as their batch.

    Args:
        batches: normalized and padded frames (F, 3, H, W), all of one size.
        backbone, head: of the model.
        image_size: (height, width) without padding.
    """
    tokens: list[list[torch.Tensor]] = []
    small: list[list[torch.Tensor]] = []
    features: list[torch.Tensor] = []
    for images in batches:
        padded_size = tuple(images.shape[-2:])
        mask_features, levels = head.pixel_decoder(backbone(images))
        tokens.append(levels)
        small.append(resize_mask_features(mask_features, [x.shape[-2:] for x in levels]))
        features.append(mask_features)
    num_frames = sum(map(len, features))
    class_logits, mask_embed = head.predictor.queries(_joined(tokens), _joined(small), num_frames)
    return EncodedClip(class_logits[0], mask_embed[0], features, image_size, padded_size)


def _joined(batches: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    """Per batch and level -> per level, with the frames of all batches."""
    return [torch.cat(level) for level in zip(*batches)]

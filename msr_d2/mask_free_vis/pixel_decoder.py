"""Pixel decoder of Mask2Former (arXiv 2112.01527): deformable encoder and one step of an FPN.

Frames do not see each other here. Parameter names are those of published checkpoints.
"""

from __future__ import annotations

import math

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from fvcore.common.registry import Registry
from fvcore.nn.weight_init import c2_xavier_fill
from torch import nn
from torch.nn import functional as F

from ..layers.deformable_attention import MSDeformAttn
from ..layers.position_encoding import sine_position_2d

# Of our own, so that another implementation of the same names can be installed beside this one.
PIXEL_DECODER_REGISTRY = Registry("MSR_PIXEL_DECODER")
PIXEL_DECODER_REGISTRY.__doc__ = """
Pixel decoders: built with `(cfg, input_shape)`, called with the features of the backbone; see
:class:`MSDeformAttnPixelDecoder`.
"""

_GROUPS = 32
_LEVELS_OUT = 3


class _EncoderLayer(nn.Module):
    """Deformable attention and feed-forward layers, each normalised after its addition."""

    def __init__(self, width: int, hidden: int, dropout: float, levels: int, heads: int):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)
        self.self_attn = MSDeformAttn(width, levels, heads)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens, positions, reference, spatial_shapes) -> torch.Tensor:
        attended = self.self_attn(tokens + positions, reference, tokens, spatial_shapes)
        tokens = self.norm1(tokens + self.dropout(attended))
        hidden = self.dropout(F.relu(self.linear1(tokens)))
        return self.norm2(tokens + self.dropout(self.linear2(hidden)))


class _Encoder(nn.Module):
    def __init__(self, layers: int, *settings):
        super().__init__()
        self.layers = nn.ModuleList(_EncoderLayer(*settings) for _ in range(layers))


class _Transformer(nn.Module):
    """Encoder over the cells of all maps of a frame."""

    def __init__(self, layers: int, width: int, hidden: int, dropout: float, levels: int, heads):
        super().__init__()
        self.encoder = _Encoder(layers, width, hidden, dropout, levels, heads)
        self.level_embed = nn.Parameter(torch.empty(levels, width))
        nn.init.normal_(self.level_embed)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Maps (F, C, h_l, w_l) in, maps of the same sizes out."""
        shapes = [tuple(x.shape[-2:]) for x in maps]
        device, width = maps[0].device, maps[0].shape[1]
        planes = [sine_position_2d(shape, width, device=device) for shape in shapes]
        levels = [p.flatten(1).T + embed for p, embed in zip(planes, self.level_embed)]
        positions = torch.cat(levels)
        reference = torch.cat([_cell_centres(shape, device) for shape in shapes])
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)
        for layer in self.encoder.layers:
            tokens = layer(tokens, positions, reference, shapes)
        parts = tokens.split([h * w for h, w in shapes], dim=1)
        return [x.transpose(1, 2).unflatten(2, shape) for x, shape in zip(parts, shapes)]


def _cell_centres(size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Centres of the cells of a map, (h * w, 2) as (x, y) relative to its size."""
    y, x = ((torch.arange(n, dtype=torch.float32, device=device) + 0.5) / n for n in size)
    return torch.stack([x.repeat(size[0]), y.repeat_interleave(size[1])], dim=-1)


@PIXEL_DECODER_REGISTRY.register()
class MSDeformAttnPixelDecoder(nn.Module):
    """From the features of a backbone to three maps for attention and one for masks.

    Always runs in float32: sampling locations need it.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        conv_dim: int = 256,
        mask_dim: int = 256,
        norm: str = "GN",
        common_stride: int = 4,
        transformer_in_features: list[str],
        transformer_layers: int = 6,
        transformer_heads: int = 8,
        transformer_hidden_dim: int = 1024,
        transformer_dropout: float = 0.0,
    ):
        """
        Args:
            input_shape: channels and stride of each feature map.
            conv_dim: channels C of all maps inside; divisible by 32 and by the heads.
            mask_dim: channels of the mask features.
            norm: of the FPN's convolutions, in detectron2's names.
            common_stride: stride of the mask features.
            transformer_in_features: the maps that the encoder works on.
            transformer_layers, transformer_heads, transformer_hidden_dim, transformer_dropout: of
                the encoder; the hidden dimension is that of its feed-forward layers.

        Raises:
            ValueError: if the features do not exist, or if widths and groups do not go together.
        """
        super().__init__()
        _check_features(input_shape, transformer_in_features, common_stride)
        _check_width(conv_dim, norm)
        by_stride = sorted(input_shape.items(), key=lambda item: item[1].stride)
        coarse_first = [x for x in reversed(by_stride) if x[0] in transformer_in_features]
        self.encoder_features = [name for name, _ in coarse_first]
        self.input_proj = nn.ModuleList(
            _projection(shape.channels, conv_dim) for _, shape in coarse_first
        )
        self.transformer = _Transformer(
            transformer_layers,
            conv_dim,
            transformer_hidden_dim,
            transformer_dropout,
            len(coarse_first),
            transformer_heads,
        )
        self.mask_features = Conv2d(conv_dim, mask_dim, kernel_size=1)
        c2_xavier_fill(self.mask_features)
        steps = int(math.log2(coarse_first[-1][1].stride // common_stride))
        self.fpn_features = [name for name, _ in by_stride[:steps]]
        self._add_fpn([shape.channels for _, shape in by_stride[:steps]], conv_dim, norm)

    def _add_fpn(self, channels: list[int], width: int, norm: str) -> None:
        bias = norm == ""
        for index, channels_in in enumerate(channels, 1):
            lateral = Conv2d(channels_in, width, 1, bias=bias, norm=get_norm(norm, width))
            output = Conv2d(
                width, width, 3, padding=1, bias=bias, norm=get_norm(norm, width), activation=F.relu
            )
            for conv in (lateral, output):
                c2_xavier_fill(conv)
            self.add_module(f"adapter_{index}", lateral)
            self.add_module(f"layer_{index}", output)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head, former = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
        if head.TRANSFORMER_ENC_LAYERS < 1:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS is {head.TRANSFORMER_ENC_LAYERS}: it "
                "must be at least 1, or the embedding of the levels would have no gradient, for "
                "which training on several GPUs stops"
            )
        return {
            "input_shape": {k: v for k, v in input_shape.items() if k in head.IN_FEATURES},
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
            "common_stride": head.COMMON_STRIDE,
            "transformer_in_features": head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES,
            "transformer_layers": head.TRANSFORMER_ENC_LAYERS,
            "transformer_heads": former.NHEADS,
            "transformer_hidden_dim": head.TRANSFORMER_ENC_DIM_FEEDFORWARD,
            "transformer_dropout": former.DROPOUT,
        }

    def forward(self, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Decode F frames, which may be of several clips.

        Args:
            features: maps (F, channels, ·, ·) of the backbone by name.

        Returns:
            Mask features (F, mask_dim, h, w) at the common stride, and the three coarsest maps
            (F, C, ·, ·), coarsest first (strides 32, 16 and 8); float32.
        """
        device = features[self.encoder_features[0]].device
        with torch.autocast(device.type, enabled=False):
            maps = [
                project(features[name].float())
                for project, name in zip(self.input_proj, self.encoder_features)
            ]
            maps = self.transformer(maps)
            for index in range(len(self.fpn_features), 0, -1):
                name = self.fpn_features[index - 1]
                lateral = getattr(self, f"adapter_{index}")(features[name].float())
                above = F.interpolate(
                    maps[-1], lateral.shape[-2:], mode="bilinear", align_corners=False
                )
                maps.append(getattr(self, f"layer_{index}")(lateral + above))
            return self.mask_features(maps[-1]), maps[:_LEVELS_OUT]


def _projection(channels: int, width: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel_size=1)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.GroupNorm(_GROUPS, width))


def _check_features(input_shape, encoder_features, common_stride: int) -> None:
    missing = [name for name in encoder_features if name not in input_shape]
    if missing or not encoder_features:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES {encoder_features} "
            f"must be among the features of the head, which are {sorted(input_shape)}: see "
            "MODEL.SEM_SEG_HEAD.IN_FEATURES and the outputs of the backbone"
        )
    finest = min(input_shape[name].stride for name in encoder_features)
    strides = sorted(shape.stride for shape in input_shape.values())
    expected = [common_stride * 2**i for i in range(int(math.log2(finest / common_stride)))]
    if finest < common_stride or strides[: len(expected)] != expected:
        raise ValueError(
            f"mask features of stride {common_stride} (MODEL.SEM_SEG_HEAD.COMMON_STRIDE) cannot be "
            f"made from features of strides {strides}: the FPN needs strides {expected} below the "
            f"encoder's finest, {finest}"
        )


def _check_width(conv_dim: int, norm: str) -> None:
    if conv_dim % _GROUPS:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.CONVS_DIM {conv_dim} with NORM {norm!r}: the pixel decoder "
            f"normalises in {_GROUPS} groups, so its width must be divisible by {_GROUPS}"
        )

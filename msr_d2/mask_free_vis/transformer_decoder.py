"""Transformer decoder of Mask2Former-VIS (arXiv 2112.10764): one query is one object of a clip.

Parameter names are those of published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.config import CfgNode, configurable
from fvcore.common.registry import Registry
from fvcore.nn.weight_init import c2_xavier_fill
from torch import nn
from torch.nn import functional as F

from ..layers.attention import MultiheadAttention
from ..layers.position_encoding import sine_position_1d, sine_position_2d

# Of our own, so that another implementation of the same names can be installed beside this one.
TRANSFORMER_DECODER_REGISTRY = Registry("MSR_TRANSFORMER_DECODER")
TRANSFORMER_DECODER_REGISTRY.__doc__ = """
Transformer decoders: built with `(cfg, in_channels)`; see
:class:`VideoMultiScaleMaskedTransformerDecoder`.
"""

_LEVELS = 3


class _SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.self_attn = MultiheadAttention(width, heads, dropout)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)

    def forward(self, output: torch.Tensor, query_embed: torch.Tensor) -> torch.Tensor:
        query = output + query_embed
        return self.norm(output + self.dropout(self.self_attn(query, query, output)))


class _CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.multihead_attn = MultiheadAttention(width, heads, dropout)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)

    def forward(self, output, query_embed, keys, values, allowed) -> torch.Tensor:
        attended = self.multihead_attn(output + query_embed, keys, values, allowed)
        return self.norm(output + self.dropout(attended))


class _FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, dropout: float):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)

    def forward(self, output: torch.Tensor) -> torch.Tensor:
        hidden = self.linear2(self.dropout(F.relu(self.linear1(output))))
        return self.norm(output + self.dropout(hidden))


class _MLP(nn.Module):
    """Three linear layers with ReLU between them."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, n) for n in (width, width, out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


@TRANSFORMER_DECODER_REGISTRY.register()
class VideoMultiScaleMaskedTransformerDecoder(nn.Module):
    """Queries that attend to the cells of all frames where their own masks are.

    A clip of one frame gives what the image model of the family gives: the positions along time
    are then the same for all keys, and the softmax does not see them.
    """

    @configurable
    def __init__(
        self,
        in_channels: int,
        *,
        num_classes: int,
        hidden_dim: int = 256,
        num_queries: int = 100,
        num_heads: int = 8,
        dim_feedforward: int = 2048,
        num_layers: int = 9,
        mask_dim: int = 256,
        dropout: float = 0.0,
        enforce_input_proj: bool = False,
    ):
        """
        Args:
            in_channels: of the maps of the pixel decoder.
            num_classes: K, without "no object".
            hidden_dim: C of queries and keys; divisible by 4 and by the heads.
            num_queries: Q.
            num_heads, dim_feedforward, num_layers, dropout: of the transformer.
            mask_dim: channels of the mask features.
            enforce_input_proj: project the maps also if they have `hidden_dim` channels already.

        Raises:
            ValueError: if the width does not suit the heads or the positions.
        """
        super().__init__()
        sine_position_2d((1, 1), hidden_dim)  # complains about a width it cannot divide
        layers = range(num_layers)
        self.transformer_self_attention_layers = nn.ModuleList(
            _SelfAttention(hidden_dim, num_heads, dropout) for _ in layers
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            _CrossAttention(hidden_dim, num_heads, dropout) for _ in layers
        )
        self.transformer_ffn_layers = nn.ModuleList(
            _FeedForward(hidden_dim, dim_feedforward, dropout) for _ in layers
        )
        self.decoder_norm = nn.LayerNorm(hidden_dim)
        self.query_feat = nn.Embedding(num_queries, hidden_dim)
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.level_embed = nn.Embedding(_LEVELS, hidden_dim)
        project = enforce_input_proj or in_channels != hidden_dim
        self.input_proj = nn.ModuleList(
            _projection(in_channels, hidden_dim) if project else nn.Sequential()
            for _ in range(_LEVELS)
        )
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.mask_embed = _MLP(hidden_dim, mask_dim)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int) -> dict:
        former = cfg.MODEL.MASK_FORMER
        if former.PRE_NORM:
            raise ValueError(
                "MODEL.MASK_FORMER.PRE_NORM is True: only normalisation after each addition is "
                "implemented, which all published models use; set it to False"
            )
        projected = former.ENFORCE_INPUT_PROJ or in_channels != former.HIDDEN_DIM
        # Each parameter needs a gradient, or training on several GPUs stops.
        least = _LEVELS + 1 if projected else 2
        if former.DEC_LAYERS < least:
            raise ValueError(
                f"MODEL.MASK_FORMER.DEC_LAYERS is {former.DEC_LAYERS}: it counts the supervised "
                f"outputs, one more than layers, and must be at least {least}"
                + (": a layer for each map that is projected" if projected else "")
            )
        return {
            "in_channels": in_channels,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "hidden_dim": former.HIDDEN_DIM,
            "num_queries": former.NUM_OBJECT_QUERIES,
            "num_heads": former.NHEADS,
            "dim_feedforward": former.DIM_FEEDFORWARD,
            "num_layers": former.DEC_LAYERS - 1,
            "mask_dim": cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
            "dropout": former.DROPOUT,
            "enforce_input_proj": former.ENFORCE_INPUT_PROJ,
        }

    def forward(
        self, multi_scale: list[torch.Tensor], mask_features: torch.Tensor, num_frames: int
    ) -> dict:
        """Predict after each layer, and from the learned queries before the first.

        Args:
            multi_scale: three maps (B * T, channels, h_l, w_l), coarsest first; frames of a clip
                follow each other.
            mask_features: (B * T, mask_dim, h, w).
            num_frames: T.

        Returns:
            "pred_logits" (B, Q, K + 1) class logits, the last of "no object"; "pred_masks"
            (B, Q, T, h, w) mask logits; "aux_outputs", the same of all earlier outputs in order.
        """
        sizes = [x.shape[-2:] for x in multi_scale]
        outputs = []

        def predict(output: torch.Tensor, level: int | None) -> torch.Tensor | None:
            output = self.decoder_norm(output)
            masks = _mask_logits(self.mask_embed(output), mask_features)
            outputs.append(
                {"pred_logits": self.class_embed(output), "pred_masks": masks.transpose(1, 2)}
            )
            if level is None:
                return None
            return _allowed(_resize(masks.detach().flatten(0, 1), sizes[level]), num_frames)

        self._run_layers(multi_scale, num_frames, predict)
        return {**outputs[-1], "aux_outputs": outputs[:-1]}

    def queries(
        self,
        multi_scale: list[torch.Tensor],
        level_mask_features: list[torch.Tensor],
        num_frames: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The final queries alone, without ever making the masks of all of them.

        Resizing is linear: masks from resized features are resized masks, up to rounding.

        Args:
            multi_scale, num_frames: as in :meth:`forward`.
            level_mask_features: the mask features, resized bilinearly to the size of each map by
                :func:`resize_mask_features`: (B * T, mask_dim, h_l, w_l).

        Returns:
            Class logits (B, Q, K + 1) and mask embeddings (B, Q, mask_dim); the mask logits of a
            query are the scalar products of its embedding with the mask features.
        """
        final = []

        def predict(output: torch.Tensor, level: int | None) -> torch.Tensor | None:
            output = self.decoder_norm(output)
            embed = self.mask_embed(output)
            if level is None:
                final.extend([self.class_embed(output), embed])
                return None
            masks = _mask_logits(embed.detach(), level_mask_features[level])
            return _allowed(masks.flatten(0, 1), num_frames)

        self._run_layers(multi_scale, num_frames, predict)
        return final[0], final[1]

    def _run_layers(
        self,
        multi_scale: list[torch.Tensor],
        num_frames: int,
        predict: Callable[[torch.Tensor, int | None], torch.Tensor | None],
    ) -> None:
        """The loop over the layers.

        Args:
            multi_scale, num_frames: as in :meth:`forward`.
            predict: gets the queries (B, Q, C) and the level that the next layer looks at (None
                after the last one); returns where they may look there, (B, 1, Q, T * h_l * w_l).
        """
        levels = [_Memory(self, index, x, num_frames) for index, x in enumerate(multi_scale)]
        clips = levels[0].values.shape[0]
        query_embed = self.query_embed.weight
        output = self.query_feat.weight.expand(clips, -1, -1)
        layers = list(
            zip(
                self.transformer_cross_attention_layers,
                self.transformer_self_attention_layers,
                self.transformer_ffn_layers,
            )
        )
        for index, (cross_attention, self_attention, feed_forward) in enumerate(layers):
            level = index % _LEVELS
            allowed = predict(output, level)
            memory = levels[level]
            output = cross_attention(output, query_embed, memory.keys(), memory.values, allowed)
            output = feed_forward(self_attention(output, query_embed))
        predict(output, None)


@TRANSFORMER_DECODER_REGISTRY.register()
class MultiScaleMaskedTransformerDecoder(VideoMultiScaleMaskedTransformerDecoder):
    """The name of the family's image model: the same parameters and, for one frame, values."""


class _Memory:
    """The cells of one map of a clip, for cross-attention."""

    def __init__(self, decoder, index: int, features: torch.Tensor, num_frames: int):
        features = decoder.input_proj[index](features)
        cells = features.flatten(2).transpose(1, 2) + decoder.level_embed.weight[index]
        self.num_frames, self.size = num_frames, tuple(features.shape[-2:])
        # (B, T * h_l * w_l, C)
        self.values = cells.unflatten(0, (-1, num_frames)).flatten(1, 2)

    def keys(self) -> torch.Tensor:
        """Values with 3-D sine positions; not kept, since videos can be long."""
        width, device = self.values.shape[-1], self.values.device
        plane = sine_position_2d(self.size, width, device=device).flatten(1).T
        time = sine_position_1d(self.num_frames, width, device=device)[:, None]
        dtype = self.values.dtype
        keys = self.values.unflatten(1, (self.num_frames, -1)) + plane.to(dtype)
        return keys.add_(time.to(dtype)).flatten(1, 2)


def resize_mask_features(
    mask_features: torch.Tensor, sizes: list[tuple[int, int]]
) -> list[torch.Tensor]:
    """Mask features (F, C, h, w), resized bilinearly to each of `sizes`."""
    return [_resize(mask_features, size) for size in sizes]


def _resize(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def _mask_logits(embed: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Scalar products of queries (B, Q, C) with features (B * T, C, h, w): (B, T, Q, h, w)."""
    clips, size = embed.shape[0], features.shape[-2:]
    cells = features.flatten(2).unflatten(0, (clips, -1))
    return torch.matmul(embed[:, None], cells).unflatten(-1, size)


def _allowed(masks: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Where queries may look: inside of their masks, or everywhere if a mask is empty.

    Args:
        masks: (B * T, Q, h_l, w_l) logits.
        num_frames: T.

    Returns:
        (B, 1, Q, T * h_l * w_l) bool.
    """
    inside = (masks >= 0).flatten(2).unflatten(0, (-1, num_frames))
    inside = inside.transpose(1, 2).flatten(2)
    return (inside | ~inside.any(-1, keepdim=True))[:, None]


def _projection(channels: int, width: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, width, kernel_size=1)
    c2_xavier_fill(conv)
    return conv
